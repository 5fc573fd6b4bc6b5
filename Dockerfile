# rsconvert on CPUs. Build with a network, run without one; --user lets it write into your folder:
#     docker build -t rsconvert .
#     docker run --rm --network none --user "$(id -u):$(id -g)" -v "$PWD:/data" rsconvert demo -o rsconvert-demo
#     docker run --rm --network none --user "$(id -u):$(id -g)" -v "$PWD:/data" rsconvert predict net.safetensors photo.jpg
FROM python:3.11-slim
# The newest versions that pyproject.toml allows, as pip takes them elsewhere.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu
COPY pyproject.toml setup.cfg README.md LICENSE /opt/rsconvert/
COPY rsconvert /opt/rsconvert/rsconvert
RUN pip install --no-cache-dir "/opt/rsconvert[onnx]" && useradd --create-home --uid 1000 user
# A home that any user may write to, for the caches of matplotlib and torch.
ENV HOME=/tmp
USER 1000
WORKDIR /data
ENTRYPOINT ["rsconvert"]
CMD ["--help"]
