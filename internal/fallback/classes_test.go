package fallback_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/fallback"
)

// endings are the classes after which nobody is asked, whatever a route says.
func endings() []backend.Class {
	return []backend.Class{backend.Canceled, backend.Expired, backend.InvalidJob, backend.Poison}
}

// follow returns who is asked after a failure of class and status.
func follow(t *testing.T, class backend.Class, status int, policy func(*fallback.Policy)) (asked []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		st := newStage(t, shape{
			backends: chain(model("a", fails(class, 0).http(status)), model("b"), offline()),
			policy:   policy,
		})
		out := st.once(t.Context(), nil, time.Time{})
		for _, call := range st.calls {
			asked = append(asked, call[:len(call)-len("@0s")])
		}
		if len(asked) == 1 {
			require.Equal(t, class, out.Err.Class)
			if class != backend.Canceled { // which is no failure
				require.Equal(t, string(class), out.Last.Class)
			}
		}
	})
	return asked
}

func TestWhatFollowsEachClass(t *testing.T) {
	t.Parallel()
	stops := []backend.Class{backend.ModelNotFound, backend.InvalidRequest, backend.ContentFilter, backend.CircuitOpen}
	all := func(p *fallback.Policy) { p.OnErrors = backend.Classes() }
	none := func(p *fallback.Policy) { p.OnErrors, p.OnStatusCodes = []backend.Class{}, []int{} }
	off := func(p *fallback.Policy) { p.Enabled = false }
	for _, class := range backend.Classes() {
		t.Run(string(class), func(t *testing.T) {
			t.Parallel()
			next, rules, nobody := []string{"a", "b"}, []string{"a", "rules"}, []string{"a"}
			byDefault, whenAll, whenNone := next, next, rules
			if slices.Contains(stops, class) {
				byDefault = rules
			}
			if slices.Contains(endings(), class) {
				byDefault, whenAll, whenNone = nobody, nobody, nobody
			}
			require.Equal(t, byDefault, follow(t, class, 0, nil))
			require.Equal(t, whenAll, follow(t, class, 0, all))
			require.Equal(t, whenNone, follow(t, class, 0, none))
			require.Equal(t, nobody, follow(t, class, 0, off))
			only := func(p *fallback.Policy) { p.OnErrors = []backend.Class{class} }
			require.Equal(t, whenAll, follow(t, class, 0, only))
		})
	}
}

func TestStatusCodesAndClassesTogether(t *testing.T) {
	t.Parallel()
	codes := func(codes ...int) func(*fallback.Policy) {
		return func(p *fallback.Policy) { p.OnStatusCodes = codes }
	}
	classes := func(classes ...backend.Class) func(*fallback.Policy) {
		return func(p *fallback.Policy) { p.OnErrors = classes }
	}
	both := func(a, b func(*fallback.Policy)) func(*fallback.Policy) {
		return func(p *fallback.Policy) { a(p); b(p) }
	}
	for _, c := range []struct {
		name   string
		class  backend.Class
		status int
		policy func(*fallback.Policy)
		goesOn bool
	}{
		{"codes that are chosen add to the classes: the code", backend.InvalidRequest, 422, codes(422), true},
		{"codes that are chosen add to the classes: the class", backend.ServerError, 500, codes(422), true},
		{"codes that are chosen overrule an exact class", backend.ContentFilter, 400, codes(400), true},
		{"a class of a code that was not chosen", backend.InvalidRequest, 400, codes(422), false},
		{"the default codes do not overrule an exact class", backend.ContentFilter, 500, nil, false},
		{"a class without a status", backend.Timeout, 0, codes(422), true},
		{"classes that are chosen replace the defaults", backend.Timeout, 0, classes(backend.RateLimit), false},
		{"a class that is chosen", backend.ModelNotFound, 404, classes(backend.ModelNotFound), true},
		{"the default codes of a default class still go on", backend.ServerError, 500, classes(backend.Timeout), true},
		{"another code of a default class does not", backend.ServerError, 501, classes(backend.Timeout), false},
		{"nor does a default code of an exact class", backend.ContentFilter, 503, classes(backend.Timeout), false},
		{"chosen classes and chosen codes: only those", backend.ServerError, 500, both(classes(backend.Timeout), codes(422)), false},
		{"chosen classes and chosen codes: the code", backend.InvalidRequest, 422, both(classes(backend.Timeout), codes(422)), true},
		{"no class on purpose", backend.ServerError, 500, func(p *fallback.Policy) { p.OnErrors, p.OnStatusCodes = []backend.Class{}, []int{} }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			want := "rules"
			if c.goesOn {
				want = "b"
			}
			require.Equal(t, []string{"a", want}, follow(t, c.class, c.status, c.policy))
		})
	}
}

func TestNoStatusCodeKeepsAJobThatHasEnded(t *testing.T) {
	t.Parallel()
	for _, class := range endings() {
		require.Equal(t, []string{"a"}, follow(t, class, 429, func(p *fallback.Policy) { p.OnStatusCodes = []int{429} }), class)
	}
}

func TestTheDefaultStatusCodes(t *testing.T) {
	t.Parallel()
	require.Equal(t, []int{429, 500, 502, 503, 504}, fallback.DefaultStatusCodes())
}
