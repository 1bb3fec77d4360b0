# understudy. `make help` lists the targets.

GO      ?= go
BIN     := bin
LINT    := $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
LDFLAGS := -s -w
SOAK    ?= 10m
FUZZ    ?= 30s

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show the targets.
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build worker, submit and the scripted provider into bin/.
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/worker ./cmd/worker
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/submit ./cmd/submit
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/fakellm ./internal/llmtest/fakellm

.PHONY: demo
demo: build ## Show it: embedded JetStream, scripted providers, no key, under 25 s.
	@$(GO) run ./examples/demo -bin $(BIN)

.PHONY: test
test: ## Run every test with the race detector. Needs Go and nothing else.
	$(GO) test -race -timeout 8m ./...

.PHONY: race
race: ## Run the tests again and again to find races: COUNT times, 3 by default.
	$(GO) test -race -count $(or $(COUNT),3) -timeout 30m ./...

.PHONY: lint
lint: ## Check style, boundaries and formatting.
	$(LINT) run ./...

.PHONY: fmt
fmt: ## Format everything.
	$(LINT) fmt ./...

.PHONY: generate
generate: ## Write the generated documents anew.
	$(GO) generate ./...

.PHONY: scenarios
scenarios: ## Play every failover scenario and write docs/scenarios.md anew.
	$(GO) test -count 1 -run '^TestScenarios$$' ./internal/scenarios -update

.PHONY: verify
verify: ## Check that generated documents, go.mod and formatting are up to date.
	$(GO) mod tidy -diff
	$(GO) mod verify
	$(GO) vet ./...
	$(LINT) fmt --diff ./...

.PHONY: bench
bench: build ## Compare the worker with a bare loop, 4 min; BENCH="-only slot" for flags.
	$(GO) run ./internal/bench -worker $(BIN)/worker -side bare+ -doc docs/performance.md $(BENCH)

.PHONY: bench-scale
bench-scale: build ## Draw how the cost of a job grows, 10 min; BENCH="-curves queued" for flags.
	$(GO) run ./internal/bench -worker $(BIN)/worker -only scale -doc docs/performance.md $(BENCH)

.PHONY: bench-go
bench-go: ## Measure the hot parts; compare two runs with benchstat.
	$(GO) test -run '^$$' -bench . -benchmem ./internal/...

.PHONY: fuzz
fuzz: ## Fuzz every decoder, FUZZ (30s) each.
	@set -e; for pkg in $$($(GO) list ./internal/...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZ) $$pkg; \
	  done; done

.PHONY: soak
soak: ## Run jobs through random faults for SOAK (10m), judge them, write bin/soak-report.txt.
	UNDERSTUDY_SOAK=$(SOAK) $(GO) test -tags soak -count 1 -timeout 0 -run '^TestSoak$$' -v ./cmd/worker

.PHONY: matrix
matrix: ## Break everything at every point of a job's life and write docs/kill-matrix.md anew.
	$(GO) test -tags matrix -count 1 -parallel 8 -timeout 30m -run '^TestMatrix$$' -v ./cmd/worker

.PHONY: check
check: verify lint test ## Everything CI checks.

.PHONY: clean
clean: ## Remove what was built.
	rm -rf $(BIN)
