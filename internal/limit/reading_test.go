package limit_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/limit"
)

func TestARequestIsReadOnlyWhereTokensAreLimited(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cfg  limit.Config
		left backend.Allowances
		read bool
	}{
		"no limit":                     {limit.Config{}, backend.Allowances{}, false},
		"calls":                        {limit.Config{Concurrency: 3, RPM: 60}, backend.Allowances{}, false},
		"calls, as the provider tells": {limit.Config{}, backend.Allowances{Requests: &backend.Allowance{Limit: 9, Remaining: 9}}, false},
		"tokens":                       {limit.Config{TPM: 1 << 20}, backend.Allowances{}, true},
		"tokens too, as it tells":      {limit.Config{Concurrency: 3}, backend.Allowances{Tokens: &backend.Allowance{Limit: 9999, Remaining: 9999}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := limiter(t, c.cfg, func(context.Context, *backend.Request) (*backend.Response, error) {
				return &backend.Response{Status: 200, Left: c.left}, nil
			})
			for _, told := range []bool{false, true} { // the provider tells with its first answer
				req := &backend.Request{Body: []byte(`{"prompt":"12345678"}`)}
				req.Keep(new(backend.Measure))
				l.Room(req)
				_, err := l.Complete(t.Context(), req)
				require.NoError(t, err)
				req.Body = nil // whoever has not read it until now finds nothing
				read := c.read && (told || c.cfg.TPM > 0)
				require.Equal(t, read, req.Estimate().Input > 0)
			}
		})
	}
}
