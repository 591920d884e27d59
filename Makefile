# The front door. Everything here is one line of something else; meson.build and tools/ hold the substance.
.PHONY: help build deps check unit fuzz lint format demo run bench clean
BUILD ?= build
FUZZ_SECONDS ?= 60

help:
	@echo 'make deps    install the Debian packages that building and testing need'
	@echo 'make build   build into $(BUILD)/'
	@echo 'make demo    build, start a private instance, send mail through it, show what became of it'
	@echo 'make run     the same instance in the foreground, until Ctrl-C'
	@echo 'make check   every test, plain and under sanitizers; ends with "N passed, N failed"'
	@echo 'make unit    build and run the unit tests alone'
	@echo 'make fuzz    every fuzz target with libFuzzer for FUZZ_SECONDS ($(FUZZ_SECONDS)); found inputs in build-fuzz/found'
	@echo 'make lint    clang-format and clang-tidy'
	@echo 'make format  let clang-format mend what make lint found'
	@echo 'make bench   speed beside Debian'"'"'s Postfix, into docs/benchmarks.md'
	@echo 'make clean   remove $(BUILD)/ and build-*/'

deps:
	@tools/deps build test

build:
	@tools/deps build
	@test -f $(BUILD)/build.ninja || meson setup $(BUILD) -Dtests=false
	@ninja -C $(BUILD)

check:
	@tools/deps build test
	@/usr/bin/python3 tools/check.py

unit:
	@tools/deps build test
	@if test -f $(BUILD)/build.ninja; then meson configure $(BUILD) -Dtests=true; else meson setup $(BUILD); fi
	@meson test -C $(BUILD) --suite unit

fuzz:
	@tools/deps build test
	@/usr/bin/python3 tools/fuzz.py --seconds $(FUZZ_SECONDS)

lint:
	@/usr/bin/python3 tools/lint.py

format:
	@clang-format -i $$(git ls-files 'src/*.c' 'src/*.h')

demo: build
	@/usr/bin/python3 tools/demo.py --build $(BUILD)

run: build
	@/usr/bin/python3 tools/demo.py --build $(BUILD) --foreground

bench: build
	@status=0; for script in relay delivery backlog sessions postconf; do \
	    /usr/bin/python3 bench/$$script.py --build $(BUILD) --write docs/benchmarks.md || status=1; \
	done; exit $$status

clean:
	@rm -rf $(BUILD) build-*
