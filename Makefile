# kipsec: see `make help`.

export CGO_ENABLED = 0

BIN      = bin/kipsecd bin/sysctl bin/setkey bin/kipsec-run
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  = -s -w -X main.version=$(VERSION)
PREFIX   = /usr/local
GOFILES := $(shell find cmd fs ipsec kern net tests -name '*.go' 2>/dev/null)

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

all: $(BIN)  ## build bin/kipsecd, bin/setkey, bin/sysctl and bin/kipsec-run (default)

bin/%: $(GOFILES) go.mod go.sum
	go build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./cmd/$*

demo: all  ## two hosts in namespaces, ESP between them, every step shown (root)
	@tests/need.sh demo
	@tests/demo.sh

test: all  ## all tests; installs the programs that the shell tests ask (root for those); tells which script ran on which wire
	@tests/need.sh test
	@rm -f bin/scripts.txt
	KIPSEC_REPORT=$(CURDIR)/bin/scripts.txt go test -timeout 18m ./... || status=$$?; \
	cat bin/scripts.txt 2>/dev/null; exit $${status:-0}

bench: all  ## kipsec against wireguard-go, strongSwan and a plain wire (root), and Go benchmarks; writes docs/performance.svg
	@tests/need.sh bench
	@tests/bench.sh docs/performance.svg
	@tests/bench_beside.sh
	go test -run '^$$' -bench . -benchmem ./ipsec/... ./net/... ./kern/...

lint:  ## gofmt, go vet, staticcheck, shellcheck
	@tests/need.sh lint
	@test -z "$$(gofmt -l cmd fs ipsec kern net tests)" || { gofmt -l cmd fs ipsec kern net tests; echo 'not gofmt-ed'; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...
	shellcheck -x -P SCRIPTDIR tests/*.sh .ci/run

install: all  ## install under PREFIX (default /usr/local); sysctl goes to lib/kipsec, to stand first in a PATH
	install -D -m 755 bin/kipsecd $(DESTDIR)$(PREFIX)/sbin/kipsecd
	install -D -m 755 bin/setkey $(DESTDIR)$(PREFIX)/sbin/setkey
	install -D -m 755 bin/kipsec-run $(DESTDIR)$(PREFIX)/sbin/kipsec-run
	install -D -m 755 bin/sysctl $(DESTDIR)$(PREFIX)/lib/kipsec/sysctl
	install -D -m 644 man/kipsecd.8 $(DESTDIR)$(PREFIX)/share/man/man8/kipsecd.8
	install -D -m 644 man/setkey.8 $(DESTDIR)$(PREFIX)/share/man/man8/setkey.8
	install -D -m 644 man/kipsec-run.8 $(DESTDIR)$(PREFIX)/share/man/man8/kipsec-run.8
	install -D -m 644 man/ipsec.4 $(DESTDIR)$(PREFIX)/share/man/man4/ipsec.4

clean:  ## remove bin
	rm -rf bin

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

.PHONY: all demo test bench lint install clean help
.DELETE_ON_ERROR:
