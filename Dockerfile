# The one binary on a small base, as a user without rights.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p cli && strip target/release/tidegate

FROM debian:bookworm-slim
# Certificates for object stores that are reached by https; relays are checked against roots in the binary.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/target/release/tidegate /usr/local/bin/tidegate
COPY LICENSE /usr/share/doc/tidegate/LICENSE
# A number and not a name, so that an orchestrator can see that it is not root; a volume here takes over this owner.
RUN install --directory --owner=10001 --group=10001 /var/lib/tidegate
USER 10001:10001
WORKDIR /var/lib/tidegate
LABEL org.opencontainers.image.title="tidegate" \
      org.opencontainers.image.description="Nostr events to Kafka and a lake, SQL jobs over both" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/tidegate"]
CMD ["--help"]
