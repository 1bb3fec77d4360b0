package job_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"understudy/internal/job"
)

const chat = `{"messages":[{"role":"user","content":"hi"}]}`

func TestDecodeReadsEveryFieldOfTheEnvelope(t *testing.T) {
	t.Parallel()
	payload := golden(t, "job-full.json")
	j, err := decoder(t).Decode("default", "row-17", payload, job.Header{
		"Nats-Reply-To": {"_INBOX.header"},
		"traceparent":   {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
	})
	require.NoError(t, err)
	want := &job.Job{
		Queue: "default", ID: "row-17", CustomID: "row-17", URL: job.URLChat,
		Body: j.Body, Model: "auto", Stream: false,
		Route: "simple_qa", Chain: []string{"vllm", "openrouter"}, Primary: "vllm",
		Policy: &job.Policy{
			Enabled: new(true), Strategy: new("parallel"), MaxAttempts: new(2),
			BaseDelayMS: new(int64(500)), MaxDelayMS: new(int64(8000)), ExponentialBase: new(1.5), Jitter: new(false),
			OnStatusCodes: []int{429, 503}, OnErrors: []string{"timeout", "rate_limit"},
			ErrorMappings: map[string][]string{"rate_limit": {"openrouter"}},
			Conditions:    []string{"on_timeout", `error.message contains "overloaded"`},
			Weights:       map[string]float64{"vllm": 3, "openrouter": 0.5},
			HedgeDelayMS:  new(int64(300)), TimeoutMS: new(int64(45000)), MaxCostUSD: new(0.05), OnLimit: new("fallback"),
		},
		Timeout: time.Minute, NotBefore: time.Date(2026, 11, 30, 6, 0, 0, 0, time.UTC), Deadline: time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC),
		ReplyTo: "_INBOX.abc", EventsTo: "_INBOX.def",
		Metadata:    json.RawMessage(`{"tenant": "acme", "big": 12345678901234567890}`),
		TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	}
	require.Equal(t, want, j)
	require.Contains(t, string(payload), `"body": `+string(j.Body)+",\n", "the body is a part of the payload, unchanged")
}

func TestDecodeAcceptsBothForms(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		payload, url, body, model string
		stream                    bool
	}{
		"minimal envelope":          {`{"body":` + chat + `}`, job.URLChat, chat, "", false},
		"bare chat":                 {chat, job.URLChat, chat, "", false},
		"bare completion":           {`{"prompt":"hi","model":"m"}`, job.URLCompletions, `{"prompt":"hi","model":"m"}`, "m", false},
		"bare embedding":            {`{"input":["hi"]}`, job.URLEmbeddings, `{"input":["hi"]}`, "", false},
		"bare keeps its space":      {" {\"input\" : \"x\" }\n", job.URLEmbeddings, " {\"input\" : \"x\" }\n", "", false},
		"null prompt is not there":  {`{"prompt":null,"input":"x"}`, job.URLEmbeddings, `{"prompt":null,"input":"x"}`, "", false},
		"messages before input":     {`{"input":"x","messages":[]}`, job.URLChat, `{"input":"x","messages":[]}`, "", false},
		"provider's own fields":     {`{"messages":[],"id":1,"queue":2,"x":1e999,"x":[]}`, job.URLChat, `{"messages":[],"id":1,"queue":2,"x":1e999,"x":[]}`, "", false},
		"envelope with url":         {`{"url":"/v1/completions","body":{"prompt":""}}`, job.URLCompletions, `{"prompt":""}`, "", false},
		"url behind the body":       {`{"body":{"input":0},"url":"/v1/embeddings"}`, job.URLEmbeddings, `{"input":0}`, "", false},
		"nulls are absent":          {`{"body":` + chat + `,"custom_id":null,"method":null,"url":null,"route":null,"chain":null,"primary":null,"policy":null,"timeout_ms":null,"not_before":null,"deadline":null,"reply_to":null,"events_to":null,"metadata":null}`, job.URLChat, chat, "", false},
		"the last model counts":     {`{"model":"a","messages":[],"model":"b"}`, job.URLChat, `{"model":"a","messages":[],"model":"b"}`, "b", false},
		"a model spelt in escapes":  {`{"model":"a","messages":[],"\u006dod\u0065l":"\u0062"}`, job.URLChat, `{"model":"a","messages":[],"\u006dod\u0065l":"\u0062"}`, "b", false},
		"a null model takes it off": {`{"model":"a","messages":[],"model":null}`, job.URLChat, `{"model":"a","messages":[],"model":null}`, "", false},
		"a model further down":      {`{"messages":[{"model":"x"}],"o":{"model":"y"}}`, job.URLChat, `{"messages":[{"model":"x"}],"o":{"model":"y"}}`, "", false},
		"names have a case":         {`{"messages":[],"Model":"x"}`, job.URLChat, `{"messages":[],"Model":"x"}`, "", false},
		"stream":                    {`{"messages":[],"stream":true}`, job.URLChat, `{"messages":[],"stream":true}`, "", true},
		"the last stream counts":    {`{"messages":[],"stream":true,"stream":null}`, job.URLChat, `{"messages":[],"stream":true,"stream":null}`, "", false},
		"brackets in strings":       {`{"body":{"messages":"}]\"{[\\","model":"m"}}`, job.URLChat, `{"messages":"}]\"{[\\","model":"m"}`, "m", false},
		"an escaped body":           {`{"\u0062ody":{"messages":[]}}`, job.URLChat, `{"messages":[]}`, "", false},
		"bytes that HTML escapes":   {`{"body":{"messages":"<&>` + "\u2028" + `"}}`, job.URLChat, `{"messages":"<&>` + "\u2028" + `"}`, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j, err := decoder(t).Decode("default", "a.b", []byte(tt.payload), nil)
			require.NoError(t, err)
			require.Equal(t, &job.Job{
				Queue: "default", ID: "a.b", CustomID: "a.b",
				URL: tt.url, Body: json.RawMessage(tt.body), Model: tt.model, Stream: tt.stream,
			}, j)
			require.NoError(t, schema(t, "job").Validate(instance(t, tt.payload)))
		})
	}
}

func TestDecodeReadsValuesAtTheirLimits(t *testing.T) {
	t.Parallel()
	week := 7 * 24 * time.Hour
	for fields, want := range map[string]job.Job{
		`"timeout_ms":1`:                                 {Timeout: time.Millisecond},
		`"timeout_ms":604800000`:                         {Timeout: week},
		`"timeout_ms":6e4`:                               {Timeout: time.Minute},
		`"timeout_ms":60000.0`:                           {Timeout: time.Minute},
		`"deadline":"2026-12-01T01:00:00.5+01:00"`:       {Deadline: time.Date(2026, 12, 1, 0, 0, 0, 5e8, time.UTC)},
		`"not_before":"2026-11-30T07:00:00.25+01:00"`:    {NotBefore: time.Date(2026, 11, 30, 6, 0, 0, 25e7, time.UTC)},
		`"custom_id":""`:                                 {},
		`"custom_id":"` + strings.Repeat("x", 512) + `"`: {CustomID: strings.Repeat("x", 512)},
		`"custom_id":"\u00e9"`:                           {CustomID: "é"},
		`"route":"` + strings.Repeat("r", 64) + `"`:      {Route: strings.Repeat("r", 64)},
		`"chain":["a"]`:                                  {Chain: []string{"a"}},
		`"metadata":{}`:                                  {Metadata: json.RawMessage(`{}`)},
		`"reply_to":"_R_.x"`:                             {ReplyTo: "_R_.x"},
		`"policy":{}`:                                    {Policy: &job.Policy{}},
		`"policy":{"enabled":null}`:                      {Policy: &job.Policy{}},
		`"policy":{"max_attempts":1000}`:                 {Policy: &job.Policy{MaxAttempts: new(1000)}},
		`"policy":{"base_delay_ms":0,"max_delay_ms":86400000,"hedge_delay_ms":0}`: {Policy: &job.Policy{BaseDelayMS: new(int64(0)), MaxDelayMS: new(int64(86400000)), HedgeDelayMS: new(int64(0))}},
		`"policy":{"exponential_base":1,"max_cost_usd":0}`:                        {Policy: &job.Policy{ExponentialBase: new(1.0), MaxCostUSD: new(0.0)}},
		`"policy":{"on_limit":"wait"}`:                                            {Policy: &job.Policy{OnLimit: new("wait")}},
		`"policy":{"on_limit":"fallback"}`:                                        {Policy: &job.Policy{OnLimit: new("fallback")}},
		`"policy":{"on_limit":null}`:                                              {Policy: &job.Policy{}},
		`"policy":{"on_status_codes":[100,599]}`:                                  {Policy: &job.Policy{OnStatusCodes: []int{100, 599}}},
		`"policy":{"on_status_codes":[],"on_errors":[],"conditions":[],"error_mappings":{},"weights":{}}`: {Policy: &job.Policy{
			OnStatusCodes: []int{}, OnErrors: []string{}, Conditions: []string{}, ErrorMappings: map[string][]string{}, Weights: map[string]float64{},
		}},
		`"policy":{"weights":{"a":0},"error_mappings":{"RateLimitError":[]}}`: {Policy: &job.Policy{Weights: map[string]float64{"a": 0}, ErrorMappings: map[string][]string{"RateLimitError": {}}}},
	} {
		t.Run(fields[:min(len(fields), 60)], func(t *testing.T) {
			t.Parallel()
			payload := `{"body":` + chat + `,` + fields + `}`
			want.Queue, want.ID, want.URL, want.Body = "q", "id", job.URLChat, json.RawMessage(chat)
			if want.CustomID == "" {
				want.CustomID = "id"
			}
			j, err := decoder(t).Decode("q", "id", []byte(payload), nil)
			require.NoError(t, err)
			require.Equal(t, &want, j)
			require.NoError(t, schema(t, "job").Validate(instance(t, payload)))
		})
	}
}

func TestDecodeChecksTheAddress(t *testing.T) {
	t.Parallel()
	_, err := decoder(t).Decode("a.b", "id", []byte(chat), nil)
	requireFieldError(t, err, `queue: '.' is not allowed; use A-Z a-z 0-9 _ -`)
	_, err = decoder(t).Decode("q", "a..b", []byte(chat), nil)
	requireFieldError(t, err, `id: an empty token; use A-Z a-z 0-9 _ -`)
}

func TestDecodeTakesTheReplySubjectFromTheHeader(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		payload string
		header  job.Header
		want    string
		err     string
	}{
		"no header":                {chat, nil, "", ""},
		"header":                   {chat, job.Header{"Nats-Reply-To": {"_INBOX.a", "_INBOX.b"}}, "_INBOX.a", ""},
		"header in any case":       {chat, job.Header{"nats-reply-to": {"_INBOX.a"}}, "_INBOX.a", ""},
		"empty header":             {chat, job.Header{"Nats-Reply-To": {""}}, "", ""},
		"the payload wins":         {`{"body":` + chat + `,"reply_to":"_INBOX.p"}`, job.Header{"Nats-Reply-To": {"llm.jobs.x.y"}}, "_INBOX.p", ""},
		"null in the payload":      {`{"body":` + chat + `,"reply_to":null}`, job.Header{"Nats-Reply-To": {"_INBOX.a"}}, "_INBOX.a", ""},
		"our own subject":          {chat, job.Header{"Nats-Reply-To": {"llm.results.q.x"}}, "", "Nats-Reply-To: lies in the subjects of this installation, llm.>"},
		"a subject of the server":  {chat, job.Header{"Nats-Reply-To": {"$JS.API.STREAM.DELETE.X"}}, "", "Nats-Reply-To: holds a $, which is for subjects of the NATS server"},
		"a subject not allowed":    {chat, job.Header{"Nats-Reply-To": {"orders.new"}}, "", "Nats-Reply-To: is not among the subjects that the workers may reply to"},
		"a subject in broken text": {chat, job.Header{"Nats-Reply-To": {"_INBOX.\xff"}}, "", "Nats-Reply-To: is not valid UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j, err := decoder(t).Decode("q", "id", []byte(tt.payload), tt.header)
			if tt.err != "" {
				requireFieldError(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.want, j.ReplyTo)
		})
	}
}

func TestDecodeKeepsOnlyAValidTraceParent(t *testing.T) {
	t.Parallel()
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for header, want := range map[string]string{
		good:       good,
		" " + good: good,
		"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what": "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what",
		"": "", "x": "",
		"ff" + good[2:]: "",
		good + "-more":  "",
		good + "1":      "",
		"00-00000000000000000000000000000000-b7ad6b7169203331-01":                              "",
		"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01":                              "",
		"00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01":                              "",
		"00-0af7651916cd43dd8448eb211c80319cb7-ad6b7169203331-01":                              "",
		"0g-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01":                              "",
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331\n01":                             "",
		"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-" + strings.Repeat("x", 1000): "",
	} {
		j, err := decoder(t).Decode("q", "id", []byte(chat), job.Header{"Traceparent": {header}})
		require.NoError(t, err)
		require.Equal(t, want, j.TraceParent, "of %q", header)
	}
}

func TestDecodeSurvivesHostilePayloads(t *testing.T) {
	t.Parallel()
	const mega = 1 << 20
	for name, tt := range map[string]struct{ payload, want string }{
		"empty":               {"", "payload: is empty"},
		"only space":          {" \n\t ", "payload: is empty"},
		"binary":              {"\x00\xff\x1f\x8b", "payload: is not valid UTF-8"},
		"not UTF-8 in a text": {"{\"messages\":\"\xc3\"}", "payload: is not valid UTF-8"},
		"a byte order mark":   {"\ufeff" + chat, "payload: is not valid JSON: see byte 1 of 48"},
		"cut off":             {`{"messages":[`, "payload: is not valid JSON: see byte 13 of 13"},
		"two values":          {chat + chat, "payload: is not valid JSON: see byte 46 of 90"},
		"a comma too many":    {`{"messages":[],}`, "payload: is not valid JSON: see byte 16 of 16"},
		"a bare name":         {`{messages:[]}`, "payload: is not valid JSON: see byte 2 of 13"},
		"NaN":                 {`{"messages":NaN}`, "payload: is not valid JSON: see byte 13 of 16"},
		"open arrays":         {strings.Repeat("[", mega), "payload: is nested deeper than 1000 levels"},
		"open objects":        {strings.Repeat(`{"a":`, mega/5), "payload: is nested deeper than 1000 levels"},
		"a deep message":      {`{"messages":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`, "payload: is nested deeper than 1000 levels"},
		"closed brackets":     {strings.Repeat("]", mega), "payload: is not valid JSON: see byte 1 of 1048576"},
		"an open string":      {`{"` + strings.Repeat(`\"`, mega), "payload: is not valid JSON: see byte 2097154 of 2097154"},
		"a huge number":       {`{"body":` + chat + `,"timeout_ms":` + strings.Repeat("9", mega) + `}`, "timeout_ms: must be between 1 and 604800000"},
		"a huge exponent":     {`{"body":` + chat + `,"timeout_ms":1e999999999}`, "timeout_ms: must be between 1 and 604800000"},
		"a tiny exponent":     {`{"body":` + chat + `,"timeout_ms":1e-999999999}`, "timeout_ms: must be between 1 and 604800000"},
		"a number in hex":     {`{"body":` + chat + `,"timeout_ms":0x10}`, "payload: is not valid JSON: see byte 69 of 72"},
		"many fields":         {`{"body":1` + strings.Repeat(`,"x":1`, mega/6) + `}`, "x: " + noField},
		"many bodies":         {`{"body":1` + strings.Repeat(`,"body":1`, mega/9) + `}`, "body: is given twice"},
		"many entries":        {`{"body":1,"chain":["a"` + strings.Repeat(`,"a"`, mega/4) + `]}`, "chain: has more than 100 entries"},
		"a long name":         {`{"body":1,"` + strings.Repeat("é", mega/2) + `":1}`, strings.Repeat("é", 32) + "…: " + noField},
		"a name off the rune": {`{"body":1,"x` + strings.Repeat("é", 100) + `":1}`, "x" + strings.Repeat("é", 31) + "…: " + noField},
		"a nasty name":        {`{"body":1,"a\n\u001b[31m\u202e\ud800":1}`, "a??[31m??: " + noField},
		"an empty name":       {`{"body":1,"":1}`, `"": ` + noField},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := decoder(t).Decode("q", "id", []byte(tt.payload), nil)
			requireFieldError(t, err, tt.want)
		})
	}
	deepest := `{"messages":` + strings.Repeat("[", 999) + strings.Repeat("]", 999) + `}`
	_, err := decoder(t).Decode("q", "id", []byte(deepest), nil)
	require.NoError(t, err, "1000 levels are allowed")
}

func TestDecodeNeverQuotesThePrompt(t *testing.T) {
	t.Parallel()
	const secret = "s3cret"
	quoted := `"` + secret + `"`
	for _, payload := range []string{
		`{"messages":` + secret + `}`,
		`{"messages":[` + quoted,
		quoted,
		`[` + quoted + `]`,
		`{"body":` + quoted + `}`,
		`{"body":{"content":` + quoted + `}}`,
		`{"body":{"messages":null,"content":` + quoted + `}}`,
		`{"messages":[],"model":[` + quoted + `]}`,
		`{"messages":[],"stream":` + quoted + `}`,
		`{"body":{},"nope":` + quoted + `}`,
		`{"body":{},"url":` + quoted + `}`,
		`{"body":{},"method":` + quoted + `}`,
		`{"body":{},"route":"` + secret + `."}`,
		`{"body":{},"deadline":` + quoted + `}`,
		`{"body":{},"reply_to":` + quoted + `}`,
		`{"body":{},"timeout_ms":` + quoted + `}`,
		`{"body":{},"metadata":` + quoted + `}`,
		`{"body":{},"policy":` + quoted + `}`,
		`{"body":{},"policy":{"strategy":` + quoted + `}}`,
		`{"body":{},"policy":{"on_errors":` + quoted + `}}`,
	} {
		_, err := decoder(t).Decode("q", "id", []byte(payload), nil)
		require.Error(t, err, payload)
		require.NotContains(t, err.Error(), secret, payload)
	}
}
