# The command `unstall` in an image that holds nothing else:
#   docker build --tag unstall .
#   docker run --rm --publish 9100:9100 unstall serve --listen 0.0.0.0:9100
FROM rust:1-alpine AS build
RUN apk add --no-cache musl-dev ca-certificates
WORKDIR /source
COPY . .
RUN cargo build --release --locked --package unstall-cli

FROM scratch
# The roots that `wss://` needs.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /source/target/release/unstall /unstall
COPY LICENSE-MIT LICENSE-APACHE /
USER 65534:65534
ENTRYPOINT ["/unstall"]
