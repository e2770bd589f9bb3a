# Short names for the doors of the house; .ci/run and tests/run are the real ones.
.PHONY: help check fmt test quick fuzz ci quickstart up down

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

check: ## form, lints and documentation, without tests
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items

fmt: ## format everything
	cargo fmt --all

test: ## every test, on a real Kafka, MinIO and PostgreSQL
	tests/run

quick: ## every test that needs no service
	TIDEGATE_SKIP_SERVICES=1 tests/run

ci: ## what a change has to pass
	.ci/run

fuzz: ## readers of strangers' bytes, a minute each
	tests/fuzz 60

quickstart: ## the main job on generated traffic, for a minute
	cargo run -p cli -- quickstart --duration 60s

up: ## kafka, minio and ingest in containers
	docker compose up --wait

down: ## stop them, keep their volumes
	docker compose down
