# Two commands on a fresh machine: `make smoke` runs the harness on a real machine, `make test` tests the harness.
# Both first install what is missing; harness/setup.sh is the list.

SHELL = bash
CARGO = cargo

# Where there is no apt but a working nix, everything runs in the flake's dev shell.
IN = $(shell [ -n "$$IN_NIX_SHELL" ] || { [ ! -e /etc/NIXOS ] && command -v apt-get >/dev/null; } \
	|| ! nix flake metadata >/dev/null 2>&1 || echo nix develop --command)

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

smoke: ## Build the image, boot it, ask everything, verify the signed transcript
	@$(IN) harness/setup.sh
	@log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
	{ $(IN) $(CARGO) test --locked --test hermetic 2>&1 >&3 | tee -i "$$log" >&2; status=$${PIPESTATUS[0]}; } 3>&1; \
	transcript=$$(sed -n 's/^transcript: //p' "$$log" | tail -n 1); \
	[ -n "$$transcript" ] || { echo "smoke: the run left no transcript" >&2; exit $$(( status ? status : 1 )); }; \
	key=$${transcript%.json}.pub; [ -e "$$key" ] || key=$${RAVE_SIGNING_KEY%.*}.pub; \
	echo "\$$ minisign -Vm $$transcript -p $$key"; \
	$(IN) minisign -Vm "$$transcript" -p "$$key" && exit $$status

test: ## Test the harness itself: format, lints, unit tests, real machines
	@$(IN) harness/setup.sh --test
	@$(MAKE) --no-print-directory check
	$(IN) $(CARGO) test --locked --workspace
	$(IN) guest/identity/test/run
	$(IN) $(CARGO) test --locked --test machine

fuzz: ## Forge a million transcripts, and say a million things to bridge, sandboxes and forge (FUZZ_INPUTS)
	@$(IN) harness/setup.sh --test
	FUZZ_INPUTS=$${FUZZ_INPUTS:-1000000} $(IN) $(CARGO) test --locked --workspace --lib --test it -- --nocapture \
		mutants_are_refused many_transactions broken_bodies whatever_is_asked

faults: ## Break real machines and their services in every way there is; writes harness/tests/faults.md
	@$(IN) harness/setup.sh --test
	$(IN) $(CARGO) test --locked -p rave-hermetic --test machine -- --ignored --nocapture --exact faults::everything_comes_out_as_it_must

sabotage: ## Break what each scenario asks about; every step must be seen to fail
	@$(IN) harness/setup.sh
	$(IN) $(CARGO) run --locked --quiet --bin hermetic -- sabotage $(SCENARIOS)

check: ## Format, lints and shell scripts only
	$(IN) $(CARGO) fmt --all --check
	$(IN) $(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@$(IN) shellcheck --external-sources $$(git grep --untracked -lE '^#(!.*[ /](ba)?sh( |$$)| shellcheck shell=)' -- . ':!*.md' ':!*.toml')

image: ## Provide the image; print its path, digests and size
	@$(IN) harness/setup.sh
	$(IN) $(CARGO) run --locked --quiet --bin hermetic -- image

bench: ## Measure what the harness costs
	@$(IN) harness/setup.sh --test
	$(IN) $(CARGO) bench --locked --workspace

clean: ## Remove what was compiled; transcripts and cached images stay
	$(IN) $(CARGO) clean

.PHONY: help smoke test fuzz faults sabotage check image bench clean
