# syntax=docker/dockerfile:1

# The builder runs on the machine's own platform and compiles for the target's.
FROM --platform=$BUILDPLATFORM golang:1.26.8-alpine AS build
WORKDIR /src
# Fail rather than fetch another Go than the one above.
ENV CGO_ENABLED=0 GOTOOLCHAIN=local
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY cmd ./cmd
COPY internal ./internal
ARG TARGETOS TARGETARCH
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -ldflags="-s -w" -o /out/bin/ \
      ./cmd/worker ./cmd/submit ./internal/llmtest/fakellm \
    && mkdir -p /out/data

# Alpine for its wget, which the health checks of docker-compose.yml use.
FROM alpine:3.23
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/bin/ /usr/local/bin/
# Where a worker without NATS_URL keeps the server it runs itself.
COPY --from=build --chown=65532:65532 /out/data /data
ENV WORKER_DATA_DIR=/data
VOLUME /data
WORKDIR /data
USER 65532:65532
# The worker stops taking jobs, lets running calls finish, hands the rest back.
STOPSIGNAL SIGTERM
EXPOSE 8080
ENTRYPOINT ["worker"]
