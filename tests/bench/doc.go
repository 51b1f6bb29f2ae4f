// Package bench names, as tools, the peers that make bench measures kipsec against: wireguard-go. It is a module of its own
// without code, so that neither the product nor its tests depend on any of them; tests/bench.sh builds them with go build.
package bench
