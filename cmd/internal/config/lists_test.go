package config

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// listCase is a list with several mistakes and what is said about it, in order.
type listCase struct {
	variable, value string
	want            []string
}

const (
	wantQueues   = "use queues such as default, or with weights high=6,default=3,low=1"
	wantReply    = "use NATS subjects with commas between, such as _INBOX.>,_R_.>"
	wantModels   = "use alias=actual, with commas between"
	wantHeaders  = "use Name: value, with semicolons or line breaks between"
	wantFields   = "use field=json, with semicolons between"
	wantStatus   = "use codes such as 429,500,503"
	wantMappings = "use class=backend|backend, with semicolons between"
	wantWeights  = "use backend=weight, with commas between, and weights of 0 or more"
	wantBackend  = "use some of a, az, r, or add it to BACKENDS"
)

func badLists() []listCase {
	return []listCase{
		{"NATS_URL", "http://h,nats://i,nats://:4222", []string{
			"server 1 has a scheme that is not nats, tls, ws or wss; " + wantNATS, "server 3 has no host; " + wantNATS,
		}},
		{"NATS_URL", "nats://u:p w@h,http://:1", []string{
			"server 1 is not a URL; " + wantNATS, "server 2 has no host; " + wantNATS, "server 2 has a scheme that is not nats, tls, ws or wss; " + wantNATS,
		}},
		{"WORKER_QUEUES", "high=0,low,a.b,low,low=many", []string{
			`the weight in "high=0" is not a whole number above 0; ` + wantQueues, `"a.b" is not a name; ` + wantName,
			`"low" is named twice; name it once`, `the weight in "low=many" is not a whole number above 0; ` + wantQueues,
		}},
		{"WORKER_QUEUES", "a b=0", []string{`"a b" is not a name; ` + wantName, `the weight in "a b=0" is not a whole number above 0; ` + wantQueues}},
		{"WORKER_REPLY_ALLOW", "a..b,_INBOX.>,$SYS.>,,x.>.y", []string{
			`subject pattern "a..b" holds an empty token; ` + wantReply, `subject pattern "$SYS.>" holds a $, which is for subjects of the NATS server; ` + wantReply,
			`subject pattern "" is empty; ` + wantReply, `subject pattern "x.>.y" holds a wildcard where none is allowed; ` + wantReply,
		}},
		{"WORKER_REPLY_ALLOW", "$a," + strings.Repeat("b", 300), []string{
			`subject pattern "$a" holds a $, which is for subjects of the NATS server; ` + wantReply,
			"a subject pattern of 300 bytes has 300 bytes; at most 255; " + wantReply,
		}},
		{"BACKENDS", "big gpu,a,a.z,a", []string{`"big gpu" is not a name; ` + wantName, `"a.z" is not a name; ` + wantName, `"a" is named twice; name it once`}},
		{"ROUTES", "x 1,default,x-1,x-1", []string{
			`"x 1" is not a name; ` + wantName, `"x-1" is named twice; name it once`, `names "default"; configure the default route with FALLBACK_*, and do not name it here`,
		}},
		{"A_MODELS", "small=x,large,small=y,=z", []string{`"large" is not a pair; ` + wantModels, `"small" is named twice; name it once`, `"=z" is not a pair; ` + wantModels}},
		{"A_HEADERS", "X-A: 1\x01;X-B: 2;x-b: 3;X-C: \x01", []string{
			"the value of header X-A has a character that is not allowed; " + wantHeaders, "header x-b is there twice; name it once",
			"the value of header X-C has a character that is not allowed; " + wantHeaders,
		}},
		{"A_HEADERS", "X-A: 1\nX B: \x01\nno\nX-A: 2", []string{
			"header 2 has a name that is not allowed; " + wantHeaders, "the value of header 2 has a character that is not allowed; " + wantHeaders,
			"header 3 has no colon; " + wantHeaders, "header 4 is there twice; name it once",
		}},
		{"A_SET", `a={"x":"1;2"};a=1;model=x;b=1;b=2;model=y`, []string{
			`the field "a" is there twice; name it once`, "the model is not set here; use MODEL or MODELS", `the field "b" is there twice; name it once`,
		}},
		{"A_SET", `a=1;no;b={"x":";="};=2;a=2`, []string{
			"field 2 is not a pair; " + wantFields, "field 4 is not a pair; " + wantFields, "the field 5 is there twice; name it once",
		}},
		{"FALLBACK_CHAIN", "gpt,a b,a,a,llama", []string{
			`"a b" is not a name; ` + wantName, `"a" is named twice; name it once`, `"gpt" is not a backend; ` + wantBackend, `"llama" is not a backend; ` + wantBackend,
		}},
		{"FALLBACK_ON_STATUS_CODES", "5xx,429,99,600", []string{
			`"5xx" is not an HTTP status; ` + wantStatus, `"99" is not an HTTP status; ` + wantStatus, `"600" is not an HTTP status; ` + wantStatus,
		}},
		{"FALLBACK_ON_ERRORS", "oops,timeout,TimeoutErr", []string{`"oops" is not an error class; ` + wantClasses, `"TimeoutErr" is not an error class; ` + wantClasses}},
		{"FALLBACK_ERROR_MAPPINGS", "oops=a;timeout=;quota=a;quota=gpt", []string{
			`"oops" is not an error class; ` + wantClasses, `"timeout=" names no backend; ` + wantMappings,
			"the class quota is named twice; name it once", `"gpt" is not a backend; ` + wantBackend,
		}},
		{"FALLBACK_ERROR_MAPPINGS", "timeout=z|a;auth=y", []string{`"z" is not a backend; ` + wantBackend, `"y" is not a backend; ` + wantBackend}},
		{"FALLBACK_CONDITIONS", "on_never;on_timeout;on_neither", []string{
			`condition 1: on_never is not known; `, `condition 3: on_neither is not known; `,
		}},
		{"FALLBACK_WEIGHTS", "z=1,a=-1,az,a=x,y=2", []string{
			`"-1" is not a weight; ` + wantWeights, `"az" is not a pair; ` + wantWeights, `"a" is named twice; ` + wantWeights, `"x" is not a weight; ` + wantWeights,
			`"z" is not a backend; ` + wantBackend, `"y" is not a backend; ` + wantBackend,
		}},
		{"ROUTE_X_1_ON_STATUS_CODES", "1,2", []string{`"1" is not an HTTP status; ` + wantStatus, `"2" is not an HTTP status; ` + wantStatus}},
	}
}

func TestEveryMistakeInAListIsReported(t *testing.T) {
	t.Parallel()
	for _, c := range badLists() {
		t.Run(c.variable+"="+c.value, func(t *testing.T) {
			t.Parallel()
			w := ForWorker(environment(with(working(), c.variable, c.value)))
			require.Len(t, w.Report.Problems, len(c.want), w.Report.Problems)
			for i, problem := range w.Report.Problems {
				require.Equal(t, c.variable, problem.Variable)
				if c.variable == "FALLBACK_CONDITIONS" { // the words are another package's
					require.Regexp(t, `^condition \d: `, problem.Wrong)
					require.Equal(t, c.want[i][:len("condition 1")], problem.Wrong[:len("condition 1")])
					continue
				}
				require.Equal(t, c.variable+": "+c.want[i], problem.String())
			}
			require.False(t, w.Report.OK())
		})
	}
}

func TestEveryListHasACaseOfSeveralMistakes(t *testing.T) {
	t.Parallel()
	tested := make(map[string]bool)
	for _, c := range badLists() {
		tested[strings.Replace(c.variable, "A_", "<NAME>_", 1)] = true
		tested[c.variable] = true
	}
	lists := 0
	require.NoError(t, eachGroup(func(_ group, list []field) {
		for _, f := range list {
			kind := reflect.ValueOf(f.variable).Elem().FieldByName("value").Kind()
			if kind != reflect.Slice && kind != reflect.Map && f.name != "WORKER_REPLY_ALLOW" || f.name == "<NAME>_DROP" { // where one thing alone can be wrong
				continue
			}
			lists++
			require.True(t, tested[f.name], "%s has no case", f.name)
		}
	}))
	require.Equal(t, 14, lists)
}

func TestWhatIsSaidAboutAVariableIsBounded(t *testing.T) {
	t.Parallel()
	lines := func(n, more int) []string {
		list := slices.Repeat([]string{`FALLBACK_ON_STATUS_CODES: "x" is not an HTTP status; ` + wantStatus}, n)
		if more > 0 {
			list = append(list, "FALLBACK_ON_STATUS_CODES: and "+strconv.Itoa(more)+" more")
		}
		return append(list, `FALLBACK_TIMEOUT: "x" is not a duration; `+wantDuration)
	}
	for n, want := range map[int][]string{9: lines(9, 0), 10: lines(10, 0), 11: lines(10, 1), 12: lines(10, 2), 20000: lines(10, 19990)} {
		w := ForWorker(environment(with(working(), "FALLBACK_ON_STATUS_CODES", strings.Repeat("x,", n), "FALLBACK_TIMEOUT", "x")))
		require.Equal(t, want, findings(w.Report.Problems))
		var out strings.Builder
		require.NoError(t, w.Print(&out))
		require.Contains(t, out.String(), "\nproblem: "+strings.Join(want, "\nproblem: ")+"\n"+strconv.Itoa(n+1)+" problems, 0 warnings\n")
	}
}

func TestTheBoundIsOfEveryKindOfFinding(t *testing.T) {
	t.Parallel()
	var names, mapped []string
	for i := range 12 {
		names = append(names, "n"+strconv.Itoa(i))
		mapped = append(mapped, "n"+strconv.Itoa(i)+"=1")
	}
	for variable, value := range map[string]string{
		"FALLBACK_CHAIN": "a b," + strings.Join(names[1:], ","), "FALLBACK_WEIGHTS": strings.Join(mapped, ","),
		"FALLBACK_ERROR_MAPPINGS": "timeout=" + strings.Join(names, "|"), "FALLBACK_CONDITIONS": strings.Repeat("on_never;", 12),
		"NATS_URL": strings.Repeat("http://h,", 12), "A_HEADERS": strings.Repeat("no;", 12), "A_SET": strings.Repeat("no;", 12),
		"WORKER_REPLY_ALLOW": strings.Repeat("$,", 11) + "$",
	} {
		w := ForWorker(environment(with(working(), variable, value)))
		require.Len(t, w.Report.Problems, maxShown+1, variable)
		require.Equal(t, Finding{Variable: variable, Wrong: "and 2 more", more: 2}, w.Report.Problems[maxShown])
	}
	w := ForWorker(environment(with(working(), "BACKENDS", "a,az,r,"+strings.Join(names, ","))))
	require.Empty(t, w.Report.Problems)
	require.Len(t, w.Report.Warnings, maxShown+1)
	require.Equal(t, "BACKENDS: n0 is off: neither N0_API_KEY nor N0_BASE_URL is set", w.Report.Warnings[0].String())
	require.Equal(t, "BACKENDS: and 2 more", w.Report.Warnings[maxShown].String())

	s := ForSubmit(environment(map[string]string{"NATS_URL": strings.Repeat("http://h,", 12)}))
	require.Len(t, s.Report.Problems, maxShown+1)
}

func TestTooManyConditionsHideNoWrongOne(t *testing.T) {
	t.Parallel()
	w := ForWorker(environment(with(working(), "FALLBACK_CONDITIONS", strings.Repeat("on_timeout;", 32)+"on_never")))
	require.Len(t, w.Report.Problems, 2)
	require.Regexp(t, "^holds 33 conditions$", w.Report.Problems[0].Wrong)
	require.Regexp(t, "^condition 33: ", w.Report.Problems[1].Wrong)
}

func TestAWrongNameHidesNoOtherProblem(t *testing.T) {
	t.Parallel()
	w := ForWorker(environment(with(working(), "BACKENDS", "a,big gpu", "A_TIMEOUT", "fast", "A_HEADERS", "no",
		"ROUTES", "x 1,y", "ROUTE_Y_TIMEOUT", "soon", "FALLBACK_CHAIN", "gpu,a", "FALLBACK_WEIGHTS", "gpu=1", "FALLBACK_ERROR_MAPPINGS", "timeout=gpu")))
	require.Equal(t, []string{
		`BACKENDS: "big gpu" is not a name; ` + wantName,
		`ROUTES: "x 1" is not a name; ` + wantName,
		`A_TIMEOUT: "fast" is not a duration; ` + wantDuration,
		"A_HEADERS: header 1 has no colon; " + wantHeaders,
		// FALLBACK_* may mean the backend that is misspelt in BACKENDS.
		`ROUTE_Y_TIMEOUT: "soon" is not a duration; ` + wantDuration,
	}, findings(w.Report.Problems))
}

func TestWhatIsLeftOfAWrongListHasNoFurtherProblems(t *testing.T) {
	t.Parallel()
	for _, vars := range [][]string{
		{"FALLBACK_CHAIN", "a z"},
		{"FALLBACK_CHAIN", "r,a z", "FALLBACK_STRATEGY", "random", "FALLBACK_WEIGHTS", "a=0"},
		{"FALLBACK_WEIGHTS", "a=0,az=x", "FALLBACK_STRATEGY", "random"},
		{"FALLBACK_WEIGHTS", "a=0,az=0,a=1", "FALLBACK_STRATEGY", "random"},
		{"FALLBACK_ERROR_MAPPINGS", "oops=a", "FALLBACK_STRATEGY", "error_type"},
		{"BACKENDS", "a,a z", "FALLBACK_STRATEGY", "error_type", "FALLBACK_ERROR_MAPPINGS", "timeout=az"},
		{"BACKENDS", "a,a z", "FALLBACK_CHAIN", "az"},
		{"WORKER_QUEUES", "high=0,low"},
	} {
		w := ForWorker(environment(with(working(), vars...)))
		require.Len(t, w.Report.Problems, 1, w.Report.Problems)
		require.Equal(t, vars[0], w.Report.Problems[0].Variable)
	}
}

func TestFindingsAboutAVariableStandTogether(t *testing.T) {
	t.Parallel()
	w := ForWorker(environment(with(working(), "FALLBACK_CHAIN", "gpt,a b", "FALLBACK_TIMEOUT", "soon")))
	require.Equal(t, []string{
		`FALLBACK_CHAIN: "a b" is not a name; ` + wantName,
		`FALLBACK_CHAIN: "gpt" is not a backend; ` + wantBackend,
		`FALLBACK_TIMEOUT: "soon" is not a duration; ` + wantDuration,
	}, findings(w.Report.Problems))
}
