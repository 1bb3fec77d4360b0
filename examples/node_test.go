//go:build node

// These tests need Node and an `npm ci` in examples/js; go test -tags node.

package examples_test

import "testing"

func TestTheNodePublisher(t *testing.T) {
	t.Parallel()
	t.Run("prints its answers", func(t *testing.T) {
		t.Parallel()
		publishes(t, "node", "js/publish.mjs")
	})
	t.Run("fails with the reason", func(t *testing.T) {
		t.Parallel()
		refuses(t, "node", "js/publish.mjs")
	})
}
