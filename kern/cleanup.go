package kern

import (
	"errors"

	"kipsec/net/nft"
	"kipsec/net/ns"
	"kipsec/net/route"
)

// Cleanup takes away what a killed kernel left in a network namespace: the rules that keep it closed, and routes. It is
// no error when there is nothing.
func Cleanup(netns string) error {
	return ns.Do(netns, func() error {
		return errors.Join(nft.Remove(), route.Remove())
	})
}
