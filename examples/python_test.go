//go:build python

// These tests need Python with nats-py; go test -tags python.

package examples_test

import "testing"

func TestThePythonPublisher(t *testing.T) {
	t.Parallel()
	t.Run("prints its answers", func(t *testing.T) {
		t.Parallel()
		publishes(t, "python3", "publish.py")
	})
	t.Run("fails with the reason", func(t *testing.T) {
		t.Parallel()
		refuses(t, "python3", "publish.py")
	})
}
