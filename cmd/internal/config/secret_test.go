package config

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// planted is what must never be seen. It has no character that quoting changes.
const planted = "Hush4711"

// secretPlaces are environments with the secret in a place each, usable and not.
func secretPlaces(t *testing.T) map[string]map[string]string {
	t.Helper()
	nats := with(working(), "NATS_URL", "nats://h:4222")
	return map[string]map[string]string{
		"key":                      with(working(), "A_API_KEY", planted),
		"azure key":                with(working(), "AZ_API_KEY", planted),
		"bad key":                  with(working(), "A_API_KEY", planted+" "+planted),
		"key of rules":             with(working(), "R_API_KEY", planted),
		"key of a backend off":     with(working(), "BACKENDS", "a,az,r,vllm", "VLLM_API_KEY", planted),
		"key file":                 with(map[string]string{"BACKENDS": "a"}, "A_API_KEY_FILE", file(t, planted)),
		"bad key file":             with(map[string]string{"BACKENDS": "a"}, "A_API_KEY_FILE", file(t, planted+"\nexport "+planted)),
		"header":                   with(working(), "A_HEADERS", "Authorization: Bearer "+planted),
		"bad header value":         with(working(), "A_HEADERS", "Authorization: "+planted+"\x01"),
		"header without a name":    with(working(), "A_HEADERS", planted),
		"header with a bad name":   with(working(), "A_HEADERS", "X Y "+planted+": 1"),
		"several bad headers":      with(working(), "A_HEADERS", planted+"; X Y "+planted+": 1; X-A: "+planted+"\x01; X-A: "+planted+"; "+planted+": 1\x01"),
		"header torn apart":        with(working(), "A_HEADERS", "Cookie: a="+planted+"; b="+planted+"; "+planted+":"+planted+"\x01;"+planted+":1;"+planted+":2"),
		"field torn apart":         with(working(), "A_SET", `a="x;`+planted+";"+planted+"=1;"+planted+"=2;="+planted+";a=1;a="+planted),
		"several bad NATS URLs":    with(working(), "NATS_URL", "nats://me:"+planted+" x@h,http://me:"+planted+"@h,nats://"+planted+"@:1"),
		"URL as a reply pattern":   with(working(), "WORKER_REPLY_ALLOW", "a..b,nats://me:"+planted+"@h..x"),
		"key as two conditions":    with(working(), "FALLBACK_CONDITIONS", "on_never;sk-or-v1-0123456789abcdef0123456789abcdef-"+planted),
		"key in lists":             with(working(), "FALLBACK_ON_ERRORS", "oops,sk-or-v1-0123456789abcdef-"+planted, "A_MODELS", "a,sk-or-v1-0123456789abcdef-"+planted, "FALLBACK_WEIGHTS", "a=x,a=sk-or-v1-0123456789abcdef-"+planted),
		"field":                    with(working(), "A_SET", "api_key="+planted+`;extra={"token":"`+planted+`"}`),
		"field without a name":     with(working(), "A_SET", "a=1;"+planted),
		"user in a base URL":       with(working(), "A_BASE_URL", "https://me:"+planted+"@h/v1"),
		"query of a base URL":      with(working(), "A_BASE_URL", "https://h/v1?key="+planted),
		"broken base URL":          with(working(), "A_BASE_URL", "https://me:"+planted+"@h:x/v1"),
		"NATS password":            with(nats, "NATS_USER", "me", "NATS_PASSWORD", planted),
		"NATS password alone":      with(nats, "NATS_PASSWORD", planted),
		"NATS password, embedded":  with(working(), "NATS_USER", "me", "NATS_PASSWORD", planted),
		"bad NATS password":        with(nats, "NATS_USER", "me", "NATS_PASSWORD", planted+" "+planted),
		"NATS token":               with(nats, "NATS_TOKEN", planted),
		"NATS user as a token":     with(nats, "NATS_USER", planted),
		"NATS URL":                 with(working(), "NATS_URL", "nats://me:"+planted+"@h:4222, nats://"+planted+"@i"),
		"broken NATS URL":          with(working(), "NATS_URL", "nats://me:"+planted+" x@h"),
		"NATS URL of no scheme":    with(working(), "NATS_URL", "me:"+planted+"@h:4222"),
		"NATS URL of a bad scheme": with(working(), "NATS_URL", "http://me:"+planted+"@h:4222"),
		"NATS URL and an address":  with(working(), "NATS_URL", "nats://me:"+planted+"@h:4222", "WORKER_DATA_DIR", "/d"),
		"unknown variable":         with(working(), "A_API_KEYS", planted, "WORKER_TOKEN", planted),
		"key in another place":     with(working(), "A_TIMEOUT", "sk-or-v1-0123456789abcdef0123456789abcdef-"+planted),
		"key as a condition":       with(working(), "FALLBACK_CONDITIONS", "sk-or-v1-0123456789abcdef0123456789abcdef-"+planted),
		"URL as a condition":       with(working(), "FALLBACK_CONDITIONS", "https://me:"+planted+"@h"),
		"URL in another place":     with(working(), "WORKER_HTTP_ADDR", "http://me:"+planted+"@h"),
	}
}

func TestNoSecretIsEverShown(t *testing.T) {
	t.Parallel()
	for name, vars := range secretPlaces(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := ForWorker(environment(vars))
			var seen bytes.Buffer
			require.NoError(t, w.Print(&seen))
			for _, f := range append(w.Report.Problems, w.Report.Warnings...) {
				fmt.Fprintln(&seen, f, f.Variable, f.Wrong, f.Mend)
			}
			s := ForSubmit(environment(vars))
			fmt.Fprintln(&seen, s.Report, s.NATS.Servers())
			fmt.Fprintf(&seen, "%v %+v %#v %s %q %v\n", s.NATS, s.NATS, s.NATS, s.NATS, s.NATS, &s.NATS)
			fmt.Fprintf(&seen, "%v %+v %v\n", w.Config.Backends, w.Config.Backends, w.NATS)
			logger := slog.New(slog.NewJSONHandler(&seen, nil))
			logger.Info("test", "nats", w.NATS, "report", w.Report)
			require.Contains(t, seen.String(), "WORKER_CONCURRENCY=64") // it did print
			require.NotContains(t, seen.String(), planted)
		})
	}
}

func TestWhatIsSetAndHiddenIsShownAsSet(t *testing.T) {
	t.Parallel()
	w := ForWorker(environment(with(working(),
		"NATS_URL", "nats://me:"+planted+"@h:4222", "A_HEADERS", "X-B: 1; X-A: 2", "A_SET", "b=1;a=2", "A_API_KEY", planted,
	)))
	var out strings.Builder
	require.NoError(t, w.Print(&out))
	for _, line := range []string{
		"NATS: nats://[set]@h:4222\n", "  NATS_URL=nats://[set]@h:4222\n", "  A_API_KEY=[set]\n",
		"  A_HEADERS=X-A: [set]; X-B: [set]\n", "  A_SET=a=[set];b=[set]\n",
	} {
		require.Contains(t, out.String(), line)
	}
}

func FuzzNoValueBreaksTheReport(f *testing.F) {
	for _, seed := range []string{"", ";", "=", "a=b", "a=1;b={", "nats://u:p@h", "https://u:p@h/?q", "1e400", "\x00", "a|b", "x: y", "timeout=a|b;", "a=,b", `[";"]`, "ünï=çødé"} {
		f.Add(seed)
	}
	apart := map[string]map[string]string{"lists": {}, "values": {}}
	if err := eachGroup(func(g group, list []field) {
		for _, v := range list {
			switch name := strings.Replace(v.name, "<NAME>", "A", 1); {
			case strings.HasSuffix(name, "_CONTEXT"), strings.HasSuffix(name, "_FILE"), strings.HasSuffix(name, "_RULES"):
				// They read files, which other tests do.
			case name == "BACKENDS", name == "ROUTES", name == "A_KIND":
				apart["lists"][name] = ""
			default:
				apart["values"][name] = ""
			}
		}
	}); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, value string) {
		for _, names := range apart {
			vars := working()
			for name := range names {
				vars[name] = value
			}
			w := ForWorker(environment(vars))
			for _, problem := range w.Report.Problems {
				first, details, _ := strings.Cut(problem.String(), "\n")
				if strings.Contains(problem.line(), "\n") || first != problem.line() {
					t.Fatalf("%q: a problem on two lines: %q", value, problem)
				}
				if got := strings.Count(details, "\n") + 1; details != "" && got != len(problem.Detail) {
					t.Fatalf("%q: %d details on %d lines: %q", value, len(problem.Detail), got, problem)
				}
			}
			if err := w.Print(new(strings.Builder)); err != nil {
				t.Fatal(err)
			}
		}
	})
}
