package openai

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
	"understudy/internal/job"
)

// order is the schema of an order with items.
const order = `{"type":"object","additionalProperties":false,"required":["items"],"properties":{
	"note":{"anyOf":[{"type":"string"},{"type":"null"}]},
	"id":{"type":"string","pattern":"^[a-z]+$","maxLength":5,"format":"uuid"},
	"kind":{"enum":["a","b"]},"version":{"const":2},
	"items":{"type":"array","minItems":1,"uniqueItems":true,"items":{"$ref":"#/$defs/item"}}},
	"$defs":{"item":{"type":"object","required":["price"],"properties":{"price":{"type":"number","minimum":0},"sub":{"$ref":"#/$defs/item"}}}}}`

func asking(schema string) *backend.Request {
	return &backend.Request{URL: job.URLChat, Body: []byte(
		`{"model":"m","response_format":{"type":"json_schema","json_schema":{"name":"n","strict":true,"schema":` + schema + `}}}`)}
}

func asAnObject() *backend.Request {
	return &backend.Request{URL: job.URLChat, Body: []byte(`{"response_format":{"type":"json_object"}}`)}
}

// answering is an answer of choices with these messages.
func answering(messages ...string) *backend.Response {
	for i, m := range messages {
		messages[i] = `{"message":` + m + `}`
	}
	return &backend.Response{Status: 200, Body: []byte(`{"choices":[` + strings.Join(messages, ",") + `]}`)}
}

// saying is a message with a content.
func saying(content string) string {
	encoded, err := json.Marshal(map[string]string{"role": "assistant", "content": content})
	if err != nil {
		panic(err)
	}
	return string(encoded)
}

func messageOf(e *backend.Error) string {
	if e == nil {
		return ""
	}
	return e.Message
}

func TestAnAnswerIsOfTheRequestedSchema(t *testing.T) {
	t.Parallel()
	c := NewSchemaChecker()
	for content, want := range map[string]string{
		`{"items":[{"price":1}]}`: "",
		" \n{\"items\":[{\"price\":0.5,\"sub\":{\"price\":2}}],\"note\":null,\"id\":\"abc\",\"kind\":\"b\",\"version\":2.0}": "",
		``:                              "it is not JSON",
		` `:                             "it is not JSON",
		`Sure! {"items":[{"price":1}]}`: "it is not JSON",
		"```json\n{}\n```":              "it is not JSON",
		`{"items":[{"price":1}`:         "it is not JSON",
		`[]`:                            "got array, want object",
		`{}`:                            "missing property 'items'",
		`{"items":[]}`:                  "at /items: minItems: got 0, want 1",
		`{"items":[{"price":"1"}]}`:     "at /items/0/price: got string, want number",
		`{"items":[{"price":1},{"price":-1},{"price":"x"}]}`: "at /items/1/price: minimum: got -1, want 0",
		`{"items":[{"price":1,"sub":{"price":1,"sub":{}}}]}`: "at /items/0/sub/sub: missing property 'price'",
		`{"items":[{"price":1},{"price":1.0}]}`:              "at /items: items at 0 and 1 are equal",
		`{"items":[{"price":1}],"more":1}`:                   "additional properties 'more' not allowed",
		`{"items":[{"price":1}],"note":1}`:                   "at /note: fits none of the alternatives",
		`{"items":[{"price":1}],"kind":"c"}`:                 "at /kind: value must be one of 'a', 'b'",
		`{"items":[{"price":1}],"version":3}`:                "at /version: value must be 2",
		`{"items":[{"price":1}],"id":"A"}`:                   "at /id: 'A' does not match pattern '^[a-z]+$'",
		`{"items":[{"price":1}],"id":"abcdef"}`:              "at /id: maxLength: got 6, want 5",
	} {
		got := messageOf(c.Check(asking(order), answering(saying(content))))
		if want != "" {
			want = "the answer is not of the requested schema: " + want
		}
		require.Equal(t, want, got, content)
	}
}

func TestWhatElseASchemaMaySay(t *testing.T) {
	t.Parallel()
	c := NewSchemaChecker()
	for _, row := range []struct{ schema, content, want string }{
		{`{"oneOf":[{"type":"integer"},{"minimum":2}]}`, `3`, "fits more than one of the alternatives"},
		{`{"oneOf":[{"type":"integer"},{"type":"null"}]}`, `"x"`, "fits none of the alternatives"},
		{
			`{"anyOf":[{"type":"null"},{"properties":{"a/b":{"properties":{"c~":{"type":"null"}}}}},{"required":["z"]}]}`,
			`{"a/b":{"c~":1}}`, "at /a~1b/c~0: got number, want null",
		},
		{`{"properties":{"a":false}}`, `{"a":1}`, "at /a: nothing is allowed here"},
		{`false`, `1`, "nothing is allowed here"},
		{`true`, `1`, ""},
		{`{}`, `1`, ""},
		{`{"contains":{"type":"null"}}`, `[1]`, "no items match contains schema"},
		{`{"propertyNames":{"maxLength":1}}`, `{"ab":1}`, "invalid propertyName 'ab'"},
		{`{"not":{"type":"number"}}`, `1`, "'not' failed"},
		{`{"type":"string","format":"date"}`, `"x"`, ""},
		{`{"enum":[1,[2],{"a":3}]}`, `{"a":3.0}`, ""},
		{`{"enum":[1,[2],{"a":3}]}`, `{"a":4}`, "'enum' failed"},
		{`{"const":{"a":[1]}}`, `{"a":[2]}`, "'const' failed"},
		{`{"$schema":"http://json-schema.org/draft-07/schema#","format":"date"}`, `"x"`, ""},
		{
			`{"$schema":"http://json-schema.org/draft-07/schema#","items":[{"$ref":"#/definitions/a","const":2}],"definitions":{"a":{"type":"number"}}}`,
			`["x"]`, "at /0: got string, want number",
		},
		{
			`{"$schema":"http://json-schema.org/draft-07/schema#","items":[{"$ref":"#/definitions/a","const":2}],"definitions":{"a":{"type":"number"}}}`,
			`[1]`, "",
		},
		{chain(20, draft2020), `[null,1]`, "at /1: got number, want null"},
		{chain(20, draft7), `[null,1]`, "at /1: got number, want null"},
		{doubling(8), `1`, "got number, want null"},
		{`{"pattern":"^x{900}$"}`, `"x"`, "'x' does not match pattern '^x{900}$'"},
		{`{"items":{"$ref":"#"},"not":{"type":"null"}}`, deep(`[`, `null`, `]`, 200), "at " + strings.Repeat("/0", 128) + ": 'not' failed"},
		{`{"$id":"https://example.com/a","properties":{"a":{"$ref":"a#/$defs/b"}},"$defs":{"b":{"$anchor":"b","type":"null"}}}`, `{"a":1}`, "at /a: got number, want null"},
		{`{"properties":{"a\n":{"type":"null"}}}`, `{"a\n":1}`, "at /a?: got number, want null"},
	} {
		got := messageOf(c.Check(asking(row.schema), answering(saying(row.content))))
		if row.want != "" {
			row.want = "the answer is not of the requested schema: " + row.want
		}
		require.Equal(t, row.want, got, row.schema)
	}
}

func TestAnAnswerIsTheRequestedObject(t *testing.T) {
	t.Parallel()
	c := NewSchemaChecker()
	const not = "the answer is not the requested JSON object: "
	for content, want := range map[string]string{
		` {"a":1}`: "", `[]`: not + "it is not an object", `"x"`: not + "it is not an object", `{"a":`: not + "it is not JSON", "": not + "it is not JSON",
	} {
		require.Equal(t, want, messageOf(c.Check(asAnObject(), answering(saying(content)))), content)
	}
}

func TestEveryChoiceIsChecked(t *testing.T) {
	t.Parallel()
	c := NewSchemaChecker()
	const schema = `{"type":"object"}`
	for _, row := range []struct {
		messages []string
		want     string
	}{
		{[]string{saying(`{}`), saying(`{}`)}, ""},
		{[]string{saying(`{}`), saying(`1`)}, "choice 1: the answer is not of the requested schema: got number, want object"},
		{[]string{`{"content":null,"refusal":"I cannot"}`}, ""},
		{[]string{`{"content":"no JSON","refusal":"I cannot"}`}, ""},
		{[]string{`{"content":null,"tool_calls":[{"id":"1"}]}`}, ""},
		{[]string{`{"content":"","tool_calls":[{"id":"1"}]}`}, ""},
		{[]string{`{"tool_calls":[{"id":"1"}]}`, saying(`{}`)}, ""},
		{[]string{`{"content":"1","tool_calls":[{"id":"1"}]}`}, "the answer is not of the requested schema: got number, want object"},
		{[]string{`{"content":null,"tool_calls":[]}`}, "the answer is not of the requested schema: it has no content"},
		{[]string{`{}`}, "the answer is not of the requested schema: it has no content"},
		{[]string{`null`}, "the answer is not of the requested schema: it has no content"},
		{[]string{`{"content":[{"type":"text","text":"{\"a\""},{"type":"text","text":":1}"}]}`}, ""},
		{[]string{`{"content":[{"type":"text","text":"1"}]}`}, "the answer is not of the requested schema: got number, want object"},
		{nil, ""},
	} {
		require.Equal(t, row.want, messageOf(c.Check(asking(schema), answering(row.messages...))), "%v", row.messages)
	}
}

func TestAnAnswerIsAcceptedWhereNothingIsAskedFor(t *testing.T) {
	t.Parallel()
	c := NewSchemaChecker()
	for _, body := range []string{
		``, `null`, `[]`, `{}`, `{"response_format":null}`, `{"response_format":"json_schema"}`, `{"response_format":{"type":"text"}}`,
		`{"response_format":{"type":"json_schema"}}`, `{"response_format":{"type":"json_schema","json_schema":{}}}`,
		`{"response_format":{"type":"json_schema","json_schema":{"schema":null}}}`,
		`{"response_format":{"type":"json_schema","json_schema":{"schema":"text"}}}`,
		`{"Response_Format":{"type":"json_object"}}`,
	} {
		require.Nil(t, c.Check(&backend.Request{URL: job.URLChat, Body: []byte(body)}, answering(saying(`1`))), body)
	}
	elsewhere := asAnObject()
	elsewhere.URL = job.URLCompletions
	require.Nil(t, c.Check(elsewhere, answering(saying(`1`))))
}

func TestARefusedAnswerKeepsWhatIsKnownOfIt(t *testing.T) {
	t.Parallel()
	resp := answering(saying(strings.Repeat("é", maxErrorBody)))
	resp.RequestID, resp.Model, resp.Usage, resp.CostUSD = "req-1", "m-1", &job.Usage{InputTokens: 3, OutputTokens: 4}, new(0.5)
	resp.FirstToken, resp.Left = 7*time.Millisecond, backend.Allowances{Tokens: &backend.Allowance{Limit: 9}}
	e := NewSchemaChecker().Check(asAnObject(), resp)
	require.NotNil(t, e)
	require.Len(t, e.Body, maxErrorBody-1) // the cut would be inside of a character
	require.True(t, utf8.Valid(e.Body))
	e.Body = nil
	require.Equal(t, &backend.Error{
		Class: backend.BadResponse, Status: 200, Message: "the answer is not the requested JSON object: it is not JSON",
		RequestID: "req-1", Model: "m-1", Usage: &job.Usage{InputTokens: 3, OutputTokens: 4}, CostUSD: new(0.5),
		FirstToken: 7 * time.Millisecond, Left: backend.Allowances{Tokens: &backend.Allowance{Limit: 9}},
	}, e)
	require.ErrorIs(t, e, backend.BadResponse)
}

func TestTheMessageIsShort(t *testing.T) {
	t.Parallel()
	name := strings.Repeat("é", 5000)
	e := NewSchemaChecker().Check(asking(`{"additionalProperties":{"const":"`+name+`"}}`), answering(saying(`{"`+name+`":1}`)))
	require.NotNil(t, e)
	require.LessOrEqual(t, len(e.Message), maxMessage)
	require.Greater(t, len(e.Message), maxMessage-2)
	require.Contains(t, e.Message, "at /"+strings.Repeat("é", 127)+": value must be 'é")
}

// many is a list of n times the same text.
func many(text string, n int) string { return "[" + strings.Repeat(text+",", n-1) + text + "]" }

// deep is a text n times inside of another.
func deep(before, text, after string, n int) string {
	return strings.Repeat(before, n) + text + strings.Repeat(after, n)
}

// doubling is a schema that visits every value 2^n times.
func doubling(n int) string {
	var b strings.Builder
	b.WriteString(`{"$ref":"#/$defs/0","$defs":{`)
	for i := range n {
		fmt.Fprintf(&b, `"%d":{"allOf":[{"$ref":"#/$defs/%d"},{"$ref":"#/$defs/%d"}]},`, i, i+1, i+1)
	}
	fmt.Fprintf(&b, `"%d":{"type":"null"}}}`, n)
	return b.String()
}

// chain is a schema of n references, each to the next.
func chain(n int, draft string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `{"$schema":%q,"items":{"$ref":"#/$defs/0"},"$defs":{`, draft)
	for i := range n {
		fmt.Fprintf(&b, `"%d":{"$ref":"#/$defs/%d"},`, i, i+1)
	}
	fmt.Fprintf(&b, `"%d":{"type":"null"}}}`, n)
	return b.String()
}

const (
	draft7    = "http://json-schema.org/draft-07/schema#"
	draft2020 = "https://json-schema.org/draft/2020-12/schema"
)

// hostile are schemas, each with a content that is not of it, that cannot be
// checked or not in time.
func hostile() map[string][2]string {
	return map[string][2]string{
		"a circle":             {`{"$ref":"#"}`, `1`},
		"a longer circle":      {`{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}`, `1`},
		"an old circle":        {`{"$schema":"` + draft7 + `","items":{"$ref":"#/items"}}`, `[1]`},
		"a file":               {`{"$ref":"file:///etc/hostname"}`, `1`},
		"a relative file":      {`{"$ref":"schema.json"}`, `1`},
		"a remote schema":      {`{"$ref":"http://127.0.0.1:1/schema.json"}`, `1`},
		"a remote draft":       {`{"$schema":"http://127.0.0.1:1/draft","type":"null"}`, `1`},
		"the schema of drafts": {`{"$ref":"https://json-schema.org/draft/2020-12/schema"}`, `1`},
		"no such reference":    {`{"$ref":"#/$defs/none"}`, `1`},
		"dynamic":              {`{"$dynamicRef":"#a","$defs":{"x":{"$dynamicAnchor":"a","type":"null"}}}`, `1`},
		"no schema":            {`{"type":"text"}`, `1`},
		"no object":            {`[1]`, `1`},
		"bad pattern":          {`{"pattern":"("}`, `"x"`},
		"lookahead":            {`{"pattern":"^(?!x)"}`, `"x"`},
		"long pattern":         {`{"pattern":"` + strings.Repeat("x{900}", 12) + `"}`, `"x"`},
		"long patterns":        {`{"allOf":` + many(`{"pattern":"x{900}"}`, 40) + `}`, `"x"`},
		"slow pattern":         {`{"pattern":"(a?){500}b"}`, `"` + strings.Repeat("a", 1<<20) + `"`},
		"too long":             {`{"type":"null","title":"` + strings.Repeat("x", maxSchema) + `"}`, `1`},
		"too many values":      {`{"type":"null","examples":` + many("1", maxSchemaValues) + `}`, `1`},
		"too deep":             {deep(`{"not":`, `{"type":"null"}`, `}`, 202), `1`},
		"long pointers":        {`{"type":"null","$defs":{"` + strings.Repeat("x", 9999) + `":{"anyOf":` + many(`{}`, 200) + `}}}`, `1`},
		"many ids":             {`{"type":"null","$defs":{"a":{"anyOf":` + many(`{"$id":"x"}`, 17) + `}}}`, `1`},
		"a long content":       {`{"type":"null"}`, `"` + strings.Repeat("x", maxContent) + `"`},
		"a content too deep":   {`{"type":"null"}`, deep(`[`, `1`, `]`, 201)},
		"a big content":        {`{"type":"null"}`, many(`1`, maxValues)},
		"a long number":        {`{"type":"null"}`, strings.Repeat("1", maxDigits+1)},
		"a big exponent":       {`{"type":"null"}`, `1e401`},
		"a small exponent":     {`{"type":"null"}`, `1e-99999999999999999999`},
		"a big bound":          {`{"maximum":1e401}`, `1`},
		"doubling":             {doubling(40), `1`},
		"doubling lists":       {`{"allOf":[{"items":{"$ref":"#"}},{"items":{"$ref":"#"}}],"not":{"type":"null"}}`, deep(`[`, `null`, `]`, 40)},
		"a long way down":      {`{"items":{"$ref":"#"},"allOf":` + many(`{"type":"array"}`, 400) + `}`, deep(`[`, `1`, `]`, 180)},
		"a chain":              {chain(2000, draft2020), many(`1`, 5000)},
		"an old chain":         {chain(2000, draft7), many(`1`, 5000)},
		"big enums":            {`{"items":{"enum":` + many(`9`, 8000) + `}}`, many(`1`, 9999)},
		"big constants":        {`{"items":{"anyOf":` + many(`{"const":`+many(`[9]`, 90)+`}`, 40) + `}}`, many(many(`[9]`, 90), 200)},
		"many alternatives":    {`{"items":{"anyOf":` + many(`{"type":"null"}`, 2000) + `}}`, many(`1`, 30000)},
		"unique lists":         {`{"uniqueItems":true,"items":{"$ref":"#"},"not":{}}`, deep(`[`+many(`1.5`, 2)+`,`, many(`[]`, 9999), `]`, 150)},
		"long texts":           {`{"items":{"allOf":` + many(`{"maxLength":1}`, 2000) + `}}`, `["` + strings.Repeat("x", 1<<20) + `"]`},
	}
}

func TestAHostileSchemaAcceptsTheAnswer(t *testing.T) {
	t.Parallel()
	for name, row := range hostile() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Empty(t, messageOf(NewSchemaChecker().Check(asking(row[0]), answering(saying(row[1])))))
		})
	}
}

func TestABigAnswerIsStillChecked(t *testing.T) {
	t.Parallel()
	c := NewSchemaChecker()
	items := strings.Repeat(`{"price":1,"sub":{"price":2}},`, 1) // one item, made unique below
	var b strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&b, `{"price":%d,"sub":{"price":2}},`, i)
	}
	require.Nil(t, c.Check(asking(order), answering(saying(`{"items":[`+b.String()+`{"price":0.5}]}`))))
	e := c.Check(asking(order), answering(saying(`{"items":[`+b.String()+items+`{"price":null}]}`)))
	require.Equal(t, "the answer is not of the requested schema: at /items: items at 1 and 2,000 are equal", messageOf(e))
	e = c.Check(asking(order), answering(saying(`{"items":[`+b.String()+`{"price":null}]}`)))
	require.Equal(t, "the answer is not of the requested schema: at /items/2000/price: got null, want number", messageOf(e))
}

func TestASchemaIsCompiledOnceAndTheOldestIsForgotten(t *testing.T) {
	t.Parallel()
	c := NewSchemaChecker()
	check := func(n int) {
		schema := fmt.Sprintf(`{"minimum":%d}`, n)
		require.Nil(t, c.Check(asking(schema), answering(saying(fmt.Sprint(n)))))
		require.NotNil(t, c.Check(asking(schema), answering(saying(fmt.Sprint(n-1)))))
	}
	check(0)
	first := c.schemas[`{"minimum":0}`]
	for n := 1; n < maxSchemas; n++ {
		check(n)
	}
	check(0)
	require.Same(t, first, c.schemas[`{"minimum":0}`])
	check(maxSchemas)
	require.Len(t, c.schemas, maxSchemas)
	require.Len(t, c.recent, maxSchemas)
	require.Contains(t, c.schemas, `{"minimum":0}`)
	require.NotContains(t, c.schemas, `{"minimum":1}`)
}

func TestAnswersMayBeCheckedAtTheSameTime(t *testing.T) {
	t.Parallel()
	c := NewSchemaChecker()
	wrong := make([]int, 8)
	var all sync.WaitGroup
	for i := range wrong {
		all.Go(func() {
			for n := range 100 {
				schema := fmt.Sprintf(`{"maximum":%d}`, n%50)
				if c.Check(asking(schema), answering(saying(fmt.Sprint(n%50)))) != nil {
					wrong[i]++
				}
				if c.Check(asking(schema), answering(saying(fmt.Sprint(n%50+1)))) == nil {
					wrong[i]++
				}
			}
		})
	}
	all.Wait()
	require.Equal(t, make([]int, 8), wrong)
}

func FuzzCheckSchema(f *testing.F) {
	f.Add(order, `{"items":[{"price":"1"}]}`)
	f.Add(order, `{"items":[{"price":1}],"note":2}`)
	f.Add(chain(3, draft7), `[1]`)
	for _, row := range hostile() {
		if len(row[0])+len(row[1]) < 4096 {
			f.Add(row[0], row[1])
		}
	}
	f.Fuzz(func(t *testing.T, schema, content string) {
		start := time.Now()
		for _, req := range []*backend.Request{asking(schema), asAnObject()} {
			c := NewSchemaChecker()
			e := c.Check(req, answering(saying(content)))
			require.Equal(t, e, c.Check(req, answering(saying(content))))
			if e != nil {
				require.Equal(t, backend.BadResponse, e.Class)
				require.LessOrEqual(t, len(e.Message), maxMessage)
				require.True(t, utf8.ValidString(e.Message))
			}
			_ = c.Check(&backend.Request{URL: job.URLChat, Body: []byte(schema)}, &backend.Response{Body: []byte(content)})
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func BenchmarkCheckSchema(b *testing.B) {
	c := NewSchemaChecker()
	req, resp := asking(order), answering(saying(`{"items":[{"price":1},{"price":2}],"note":"x"}`))
	b.ReportAllocs()
	for b.Loop() {
		_ = c.Check(req, resp)
	}
}
