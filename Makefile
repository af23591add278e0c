# Few targets, each usable on a fresh Debian machine with Go.
#
#   make test    everything that must pass (installs what the labs need; root)
#   make lint    linters, and the proof that our own rules fire
#   make oracle  the kernel against the model of its packet filter, whole (minutes)
#   make oracle-mutants  the proof that the oracle convicts planted bugs
#   make harden-packets what real daemons and attack tools do to hardened hosts (minutes)
#   make harden-faults  every way in which a change of the host may be interrupted (minutes)
#   make cloud-init what export writes for cloud-init, read by its own schema
#   make verify-labs  the probes of verify against every lab, twenty times, and nmap (half an hour)
#   make verify-soak  verify --soak against a switch with the intervals it has out of the box (five minutes)
#   make corpus  real rulesets, made again by the real tools (installs them in an overlay)
#   make corpus-fire  every packet of the corpus' probe set, against the kernel
#   make bench   the numbers of docs/performance.md (installs peers to compare with)
#   make bench-reach  reach beside nft: the table and the plot of docs/performance.md (12 minutes on an idle machine)
#   make bench-verify  verify beside nmap: the table of docs/performance.md (five minutes on an idle machine)
#   make build   static binaries for linux/amd64 and linux/arm64 in bin/
#   make docs    regenerate the generated pages of docs/

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := test
.PHONY: test lint bench bench-reach bench-verify build docs oracle oracle-mutants corpus corpus-fire harden-faults harden-packets verify-labs verify-soak cloud-init

GO ?= go
export CGO_ENABLED := 0
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X github.com/sixfence/sixfence/internal/surface/obs.Version=$(VERSION)

# Debian packages: what the tests run, and what the benchmarks compare with.
TEST_PACKAGES := iproute2 iputils-ping nftables iptables ipset dhcpcd-base ifupdown systemd systemd-sysv procps util-linux kmod openssh-server network-manager netplan.io dbus ufw ansible-core nmap busybox dnsmasq-base tftpd-hpa rpcbind memcached libcoap3-bin
PACKETS_PACKAGES := thc-ipv6 ipv6toolkit radvd dnsmasq-base iperf3
VERIFY_PACKAGES := nmap chrony snmpd ngtcp2-server openssl gnutls-bin coturn openvpn xl2tpd avahi-daemon miniupnpd-nftables openipmi strongswan-charon libstrongswan-standard-plugins samba kamailio krb5-kdc
BENCH_PACKAGES := lynis openscap-scanner ssg-debian


# The program's own tests audit every namespace of the machine: beside the labs of other
# packages they would take twice the time.
test:
	@tools/need $(TEST_PACKAGES)
	@echo "== gofmt"; out=$$(git ls-files '*.go' | xargs -r gofmt -l); if [ -n "$$out" ]; then echo "run gofmt -w on:"; echo "$$out"; exit 1; fi
	@echo "== go vet"; $(GO) vet ./... && $(GO) vet -tags packets ./internal/logic/plan
	@echo "== go vet, arm64"; GOARCH=arm64 $(GO) vet ./...
	@echo "== go test"; rc=0; $(GO) test -timeout 25m ./cmd/... || rc=1; $(GO) test -timeout 25m $$($(GO) list ./... | grep -v /cmd/) || rc=1; exit $$rc

lint:
	@tools/lint

# Five million verdicts of the kernel against the model, and a page about them.
oracle:
	@tools/need $(TEST_PACKAGES)
	ORACLE_SECONDS=0 ORACLE_VERDICTS=5000000 BRIDGE_ROUNDS=300 ORACLE_SHAPES=80 ORACLE_SOURCES=60 ORACLE_MAX=20 ORACLE_REPORT=$(CURDIR)/docs/reference/oracle.md \
		$(GO) test -count=1 -timeout 120m -v -run '^(TestOracle|TestRegressions|TestBridge|TestXTables.*)$$' ./internal/testlab/oracle

# Bugs planted into copies of the model: the oracle must convict every one.
oracle-mutants:
	@tools/need $(TEST_PACKAGES)
	@tree=$$(mktemp -d); trap 'rm -rf "$$tree"' EXIT; for t in a b; do mkdir "$$tree/$$t"; git ls-files -z | xargs -0 cp --parents -t "$$tree/$$t"; done; \
		ORACLE_SECONDS=0 ORACLE_VERDICTS=120000 ORACLE_SHAPES=40 ORACLE_SOURCES=30 ORACLE_RECORD="$$tree/cases" $(GO) test -count=1 -timeout 60m -run '^TestOracle$$' ./internal/testlab/oracle; \
		$(GO) run ./internal/testlab/oracle/mutants "$$tree/a,$$tree/b" "$$tree/cases" docs/reference/oracle-mutants.md

# Apply, confirm and undo that are killed, hung up, refused and starved of disk space at
# every crossing and at random, beside others who write, and cut off from power, under a real
# systemd too; and a page
# about them. HARDEN_FAULTS_SEED chooses other random runs.
harden-faults:
	@tools/need $(TEST_PACKAGES) bird2 fail2ban
	@d=$$(mktemp -d); trap 'rm -rf "$$d"' EXIT; \
		HARDEN_FAULTS=520 HARDEN_CROSSINGS=1 HARDEN_DISK=5 HARDEN_REAL=24 HARDEN_CUTS=0 HARDEN_FAULTS_REPORT=$$d \
		$(GO) test -count=1 -timeout 90m -v -run '^(TestFaults|TestCrossings|TestFullDisk|TestRealPrograms|TestPowerCuts|TestPowerCutsOnExt4|TestKeepKilled)$$' ./internal/engine/apply; \
		HARDEN_BOOTS=0 HARDEN_FAULTS_REPORT=$$d $(GO) test -count=1 -timeout 90m -v -run '^TestSystemdPowerCuts$$' ./cmd/sixfence; \
		cat internal/engine/apply/testdata/faults-head.md "$$d"/* >docs/reference/harden-faults.md

# Real daemons, tools and raw frames against hosts of every kind, five minutes behind a
# snooping switch among them, and a page about them.
harden-packets:
	@tools/need $(TEST_PACKAGES) $(PACKETS_PACKAGES)
	@rm -f docs/reference/harden-packets.md; cp internal/logic/plan/testdata/packets-head.md docs/reference/harden-packets.md
	SIXFENCE_REQUIRE=1 SIXFENCE_MLD=5m10s HARDEN_PACKETS_REPORT=$(CURDIR)/docs/reference/harden-packets.md \
		$(GO) test -tags packets -count=1 -timeout 60m -v -run '^TestPackets[A-Z]' ./internal/logic/plan

cloud-init:
	@GO=$(GO) tools/cloud-init

# The kernel and nft say what the state of each port is: so must the probes, every time;
# with nmap beside them, and a page about it. VERIFY_LAB_RUNS chooses another number of runs.
verify-labs:
	@tools/need $(TEST_PACKAGES) $(VERIFY_PACKAGES)
	@d=$$(mktemp -d); trap 'rm -rf "$$d"' EXIT; \
		SIXFENCE_REQUIRE=1 VERIFY_LAB_RUNS=$${VERIFY_LAB_RUNS:-20} VERIFY_LAB_REPORT=$$d/labs \
		$(GO) test -count=1 -timeout 120m -v -run '^TestLabs$$' ./internal/host/probe; \
		SIXFENCE_REQUIRE=1 VERIFY_LAB_REPORT=$$d/wire $(GO) test -count=1 -timeout 20m -v -run '^TestWire$$' ./internal/engine/verify; \
		cat internal/host/probe/testdata/labs-head.md "$$d/labs" internal/host/probe/testdata/labs-foot.md "$$d/wire" >docs/reference/verify-labs.md

# A real membership interval of MLD: 260 seconds.
verify-soak:
	@tools/need $(TEST_PACKAGES)
	SIXFENCE_REQUIRE=1 VERIFY_SOAK=1 $(GO) test -count=1 -timeout 20m -v -run '^TestSoakForReal$$' ./internal/host/probe

# Needs overlayfs, and ten minutes the first time to build what Debian does not have.
corpus:
	@tools/need $(TEST_PACKAGES)
	internal/testlab/corpus/make.sh
	$(GO) test -count=1 ./internal/testlab/corpus -args -update

corpus-fire:
	@tools/need $(TEST_PACKAGES)
	CORPUS_SAMPLE=0 $(GO) test -count=1 -timeout 60m -v -run '^TestCorpus$$' ./internal/testlab/oracle

bench:
	@tools/need $(TEST_PACKAGES) $(BENCH_PACKAGES) time nmap
	$(GO) test -run '^$$' -bench . -benchtime 1x -timeout 60m ./bench

# Writes docs/performance.md and docs/img/reach-scaling.svg, and says which size it is at.
bench-reach:
	@tools/need $(TEST_PACKAGES) time
	SIXFENCE_BENCH_DOC=$(CURDIR)/docs $(GO) test -count=1 -run '^$$' -bench '^BenchmarkReach$$' -benchtime 1x -timeout 60m ./bench

# Writes docs/performance.md.
bench-verify:
	@tools/need $(TEST_PACKAGES) time nmap
	SIXFENCE_BENCH_DOC=$(CURDIR)/docs $(GO) test -count=1 -run '^$$' -bench '^BenchmarkVerify$$' -benchtime 1x -timeout 60m ./bench

build:
	for arch in amd64 arm64; do GOOS=linux GOARCH=$$arch $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/sixfence-linux-$$arch ./cmd/sixfence; done
	ls -l bin/

docs:
	$(GO) run ./cmd/sixfence docs .
	$(GO) test ./internal/host/feature ./cmd/sixfence -run 'TestDocs' -args -update
	$(GO) test ./internal/testlab/corpus -args -update
