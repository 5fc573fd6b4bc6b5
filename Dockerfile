# rsconvert on CPUs. Build with a network, run without one:
#     docker build -t rsconvert .
#     docker run --rm --network none -v "$PWD:/data" rsconvert demo -o rsconvert-demo
#     docker run --rm --network none -v "$PWD:/data" rsconvert predict net.safetensors photo.jpg
FROM python:3.11-slim
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu
COPY pyproject.toml setup.cfg README.md LICENSE /opt/rsconvert/
COPY rsconvert /opt/rsconvert/rsconvert
RUN pip install --no-cache-dir "/opt/rsconvert[onnx]" && useradd --create-home --uid 1000 user
USER user
WORKDIR /data
ENTRYPOINT ["rsconvert"]
CMD ["--help"]
