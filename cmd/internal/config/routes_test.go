package config

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/fallback"
	"understudy/internal/fallback/condition"
)

func TestEveryStrategyIsConfiguredWithWhatItReads(t *testing.T) {
	t.Parallel()
	for name, vars := range map[string][]string{
		fallback.Sequential:  nil,
		fallback.Priority:    {"FALLBACK_ERROR_MAPPINGS", "rate_limit=az"},
		fallback.ErrorType:   {"FALLBACK_ERROR_MAPPINGS", "rate_limit=az|r;timeout=a"},
		fallback.Random:      {"FALLBACK_WEIGHTS", "a=2,az=0"},
		fallback.Parallel:    {"FALLBACK_HEDGE_DELAY", "300ms"},
		fallback.Conditional: {"FALLBACK_CONDITIONS", "on_timeout"},
	} {
		w := ForWorker(environment(with(with(working(), vars...), "FALLBACK_STRATEGY", name)))
		require.Empty(t, w.Report.Problems, name)
		require.Empty(t, w.Report.Warnings, name)
		require.Equal(t, name, w.Config.Routes[0].Strategy)
		_, there := fallback.Strategies()[name]
		require.True(t, there, name)
	}
}

func TestAStrategyThatCouldNeverGoOnIsAProblem(t *testing.T) {
	t.Parallel()
	const (
		unmapped = "FALLBACK_ERROR_MAPPINGS: is not set: with FALLBACK_STRATEGY=error_type no other backend would ever be asked; " +
			"map a class of error to a backend, such as rate_limit=r, or set FALLBACK_STRATEGY=sequential"
		mappedOff = "FALLBACK_ERROR_MAPPINGS: names no backend that is configured: with FALLBACK_STRATEGY=error_type no other backend would ever be asked; " +
			"map a class of error to a backend, such as rate_limit=r, or set FALLBACK_STRATEGY=sequential"
		weightless    = "FALLBACK_WEIGHTS: every backend of the chain that calls a model has the weight 0; give one of them a weight above 0"
		unconditioned = "FALLBACK_CONDITIONS: is not set: with FALLBACK_STRATEGY=conditional no other backend would ever be asked; " +
			"set it, for example to on_timeout;on_rate_limit, or set FALLBACK_STRATEGY=sequential"
	)
	for _, c := range []struct {
		name string
		vars []string
		want []string
	}{
		{"error_type without mappings", []string{"FALLBACK_STRATEGY", "error_type"}, []string{unmapped}},
		{"error_type mapped to what is off", []string{"FALLBACK_STRATEGY", "error_type", "BACKENDS", "a,az,vllm,r", "FALLBACK_ERROR_MAPPINGS", "timeout=vllm"}, []string{mappedOff}},
		{"error_type with fallback off", []string{"FALLBACK_STRATEGY", "error_type", "FALLBACK_ENABLED", "false"}, nil},
		{"random without a weight", []string{"FALLBACK_STRATEGY", "random", "FALLBACK_WEIGHTS", "a=0,az=0.0"}, []string{weightless}},
		{"random in a chain without a weight", []string{"FALLBACK_STRATEGY", "random", "FALLBACK_WEIGHTS", "a=0", "FALLBACK_CHAIN", "a,r"}, []string{weightless}},
		{"random with one weight", []string{"FALLBACK_STRATEGY", "random", "FALLBACK_WEIGHTS", "a=0,az=0.1"}, nil},
		{"random with a weight by default", []string{"FALLBACK_STRATEGY", "random", "FALLBACK_WEIGHTS", "a=0"}, nil},
		{"random without weights", []string{"FALLBACK_STRATEGY", "random"}, nil},
		{"random over rules alone", []string{"FALLBACK_STRATEGY", "random", "FALLBACK_WEIGHTS", "a=0", "FALLBACK_CHAIN", "r"}, nil},
		{"conditional without a condition", []string{"FALLBACK_STRATEGY", "conditional"}, []string{unconditioned}},
		{"conditional with fallback off", []string{"FALLBACK_STRATEGY", "conditional", "FALLBACK_ENABLED", "false"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := ForWorker(environment(with(working(), c.vars...)))
			require.Equal(t, c.want, append([]string(nil), findings(w.Report.Problems)...))
		})
	}
}

func TestPriorityWithoutMappingsIsWarnedOf(t *testing.T) {
	t.Parallel()
	w := ForWorker(environment(with(working(), "FALLBACK_STRATEGY", "priority")))
	require.Empty(t, w.Report.Problems)
	require.Equal(t, []string{
		"FALLBACK_ERROR_MAPPINGS: is not set: with FALLBACK_STRATEGY=priority the chain is walked in order then; " +
			"map a class of error to a backend, such as rate_limit=r, or set FALLBACK_STRATEGY=sequential",
	}, findings(w.Report.Warnings))
}

func TestWhatAStrategyDecidesItselfIsWarnedOf(t *testing.T) {
	t.Parallel()
	for strategy, more := range map[string][]string{
		fallback.ErrorType:   {"FALLBACK_ERROR_MAPPINGS", "timeout=a"},
		fallback.Conditional: {"FALLBACK_CONDITIONS", "on_timeout"},
	} {
		w := ForWorker(environment(with(with(working(), more...),
			"FALLBACK_STRATEGY", strategy, "FALLBACK_ON_ERRORS", "timeout", "FALLBACK_ON_STATUS_CODES", "503")))
		require.Empty(t, w.Report.Problems)
		mend := " is set but not in effect with FALLBACK_STRATEGY=" + strategy +
			"; set FALLBACK_STRATEGY to sequential, priority, random or parallel, or unset it"
		require.Equal(t, []string{"FALLBACK_ON_STATUS_CODES:" + mend, "FALLBACK_ON_ERRORS:" + mend}, findings(w.Report.Warnings))
	}
}

func TestMappingsMayNameBackendsOutsideTheChain(t *testing.T) {
	t.Parallel()
	w := ForWorker(environment(with(working(), "BACKENDS", "a,az,vllm,r",
		"FALLBACK_CHAIN", "a", "FALLBACK_STRATEGY", "error_type", "FALLBACK_ERROR_MAPPINGS", "timeout=az|vllm;rate_limit=vllm")))
	require.Empty(t, w.Report.Problems)
	require.Equal(t, []string{"a"}, w.Config.Routes[0].Chain)
	require.Equal(t, map[backend.Class][]string{backend.Timeout: {"az"}}, w.Config.Routes[0].ErrorMappings)
}

func TestConditionsAreSplitOutsideOfQuotes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{
		"on_timeout; on_rate_limit ;":                     {"on_timeout", "on_rate_limit"},
		`error.message contains "a;b"; on_timeout`:        {`error.message contains "a;b"`, "on_timeout"},
		`error.message contains 'it;s' ;on_timeout`:       {`error.message contains 'it;s'`, "on_timeout"},
		`error.message contains "\";" ;on_timeout`:        {`error.message contains "\";"`, "on_timeout"},
		"error.message contains `\\`;on_timeout":          {"error.message contains `\\`", "on_timeout"},
		`error.message contains "never closed;on_timeout`: {`error.message contains "never closed;on_timeout`},
		`error.message contains "ends with \`:             {`error.message contains "ends with \`},
	} {
		got, err := conditions{}.parse(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
}

func TestTheManualNamesEveryCondition(t *testing.T) {
	t.Parallel()
	list, err := fields("FALLBACK", &routeSpec{})
	require.NoError(t, err)
	i := slices.IndexFunc(list, func(f field) bool { return f.name == "FALLBACK_CONDITIONS" })
	_, rest, _ := strings.Cut(list[i].tag.Get("desc"), "Each is a name (")
	names, _, found := strings.Cut(rest, ") or an expression")
	require.True(t, found)
	require.Equal(t, condition.Names(), strings.Split(names, ", "))
}

func TestAWrongConditionIsShownWithItsPlace(t *testing.T) {
	t.Parallel()
	const wrong = `error.status = 503`
	_, err := condition.Compile(wrong)
	require.Error(t, err)
	lines := strings.Split(err.Error(), "\n")
	require.Len(t, lines, 3)
	require.Equal(t, wrong, strings.TrimSpace(lines[1]))
	require.Equal(t, strings.Index(lines[1], "="), strings.Index(lines[2], "^"))

	// It is also looked at where the strategy does not read it.
	for _, strategy := range []string{"conditional", "sequential"} {
		w := ForWorker(environment(with(working(), "FALLBACK_STRATEGY", strategy,
			"FALLBACK_CONDITIONS", "on_timeout;"+wrong+";on_rate_limit;on_never", "ROUTE_X_1_CONDITIONS", wrong)))
		require.Len(t, w.Report.Problems, 3)
		require.Equal(t, Finding{Variable: "FALLBACK_CONDITIONS", Wrong: "condition 2: " + lines[0], Detail: lines[1:]}, w.Report.Problems[0])
		require.Equal(t, "FALLBACK_CONDITIONS", w.Report.Problems[1].Variable)
		require.Regexp(t, "^condition 4: ", w.Report.Problems[1].Wrong)
		require.Equal(t, Finding{Variable: "ROUTE_X_1_CONDITIONS", Wrong: "condition 1: " + lines[0], Detail: lines[1:]}, w.Report.Problems[2])

		require.Equal(t, "FALLBACK_CONDITIONS: condition 2: "+lines[0]+"\n  "+lines[1]+"\n  "+lines[2], w.Report.Problems[0].String())
		var out strings.Builder
		require.NoError(t, w.Print(&out))
		require.Contains(t, out.String(), "problem: FALLBACK_CONDITIONS: condition 2: "+lines[0]+"\n  "+lines[1]+"\n  "+lines[2]+"\nproblem: ")
		require.Contains(t, out.String(), "\n3 problems, ")
	}
}

func TestATooLongConditionIsShownInPart(t *testing.T) {
	t.Parallel()
	w := ForWorker(environment(with(working(), "FALLBACK_CONDITIONS", strings.Repeat("(", 2000))))
	require.Len(t, w.Report.Problems, 1)
	require.Equal(t, "condition 1: the condition has 2000 bytes; at most 1024", w.Report.Problems[0].Wrong)
	require.Len(t, w.Report.Problems[0].Detail, 2)
	require.Less(t, len(w.Report.Problems[0].Detail[0]), 200)
}

func TestAConditionThatMayBeAKeyIsNotQuoted(t *testing.T) {
	t.Parallel()
	w := ForWorker(environment(with(working(), "FALLBACK_STRATEGY", "conditional", "FALLBACK_CONDITIONS", "sk-or-v1-"+strings.Repeat("0", 32))))
	require.Equal(t, []string{"FALLBACK_CONDITIONS: condition 1: a value of 41 bytes cannot be understood"}, findings(w.Report.Problems))
}

func TestDetailsMoveNoCursor(t *testing.T) {
	t.Parallel()
	f := Finding{Variable: "V", Wrong: "is wrong", Mend: "mend it", Detail: []string{"a\x1b[2Jb\tc\r", "  ^"}}
	require.Equal(t, "V: is wrong; mend it\n  a [2Jb c\n    ^", f.String())
	var out strings.Builder
	(&Report{Problems: []Finding{f}, Warnings: []Finding{{Variable: "W", Wrong: "is \x1b"}}}).print(&out)
	require.Equal(t, "warning: \"W: is \\x1b\"\nproblem: V: is wrong; mend it\n  a [2Jb c\n    ^\n1 problem, 1 warning\n", out.String())
}
