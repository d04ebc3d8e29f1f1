# llm-proxy in a small image: docker build -t llm-proxy . && docker run -e OBSERVABILITY_ENABLED=true -p 8080:8080 llm-proxy
FROM debian:12-slim AS build
WORKDIR /src
COPY . .
RUN scripts/install-deps.sh build
RUN cmake -S . -B /build -G Ninja -DCMAKE_BUILD_TYPE=Release
RUN cmake --build /build
RUN DESTDIR=/image cmake --install /build --prefix /usr/local --strip

FROM debian:12-slim
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates libbrotli1 libcurl4 \
       libevent-core-2.1-7 libluajit-5.1-2 libpcre2-8-0 libssl3 libzstd1 zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin llm-proxy
COPY --from=build /image/usr/local /usr/local
USER 10001
ENV LISTEN_ADDR=0.0.0.0:8080
EXPOSE 8080
ENTRYPOINT ["llm-proxy"]
