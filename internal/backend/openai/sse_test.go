package openai

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
)

// eventsOf reads every event of a stream, and the error that ended it.
func eventsOf(r io.Reader, limit int64) ([]string, error) {
	var events []string
	reader := newEventReader(r, limit)
	for {
		e, err := reader.next()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return events, err
		}
		text := string(e.data)
		if e.failed {
			text = "!" + text
		}
		events = append(events, text)
	}
}

func TestEventsAreReadAsProvidersSendThem(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, stream string
		want         []string
		err          error
	}{
		{"as they should be", "data: {\"a\":1}\n\ndata: [DONE]\n\n", []string{`{"a":1}`, "[DONE]"}, nil},
		{"CRLF", "data: {\"a\":1}\r\n\r\ndata: {\"b\":2}\r\n\r\n", []string{`{"a":1}`, `{"b":2}`}, nil},
		{"CR", "data: {\"a\":1}\r\rdata: {\"b\":2}\r\r", []string{`{"a":1}`, `{"b":2}`}, nil},
		{"no space", "data:{\"a\":1}\n\n", []string{`{"a":1}`}, nil},
		{"two spaces", "data:  {\"a\":1}\n\n", []string{` {"a":1}`}, nil},
		{"no blank lines", "data: {\"a\":1}\ndata: {\"b\":2}\ndata: [DONE]", []string{`{"a":1}`, `{"b":2}`, "[DONE]"}, nil},
		{"several lines", "data: {\ndata: \"a\":1}\n\n", []string{"{\n\"a\":1}"}, nil},
		{"several lines at the end", "data: {\ndata: \"a\":1}", []string{"{\n\"a\":1}"}, nil},
		{"comments and fields", ": hello\n\nid: 7\nretry: 10\nfoo: bar\ndata: {\"a\":1}\n\n:\n", []string{`{"a":1}`}, nil},
		{"event before data", "event: error\ndata: {\"a\":1}\n\ndata: {\"b\":1}\n\n", []string{`!{"a":1}`, `{"b":1}`}, nil},
		{"event without data", "event: error\n\ndata: {\"b\":1}\n\n", []string{`{"b":1}`}, nil},
		{"error field", "error: {\"code\":400}\n\n", []string{`!{"code":400}`}, nil},
		{"error in words", "event: error\ndata: overloaded\n\n", []string{"!overloaded"}, nil},
		{"error in words at the end", "event: error\ndata: overloaded", []string{"!overloaded"}, nil},
		{"bare JSON", "data: {\"a\":1}\n\n{\"error\":{}}\n", []string{`{"a":1}`, `{"error":{}}`}, nil},
		{"byte order mark", "\xef\xbb\xbfdata: {\"a\":1}\n\n", []string{`{"a":1}`}, nil},
		{"cut in the middle", "data: {\"a\":1}\n\ndata: {\"b\":", []string{`{"a":1}`}, io.ErrUnexpectedEOF},
		{"empty data", "data:\n\ndata: {\"a\":1}\n\n", []string{"", `{"a":1}`}, nil},
		{"nothing", "", nil, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			for _, r := range []io.Reader{strings.NewReader(row.stream), iotest.OneByteReader(strings.NewReader(row.stream))} {
				got, err := eventsOf(r, 1<<20)
				require.ErrorIs(t, err, row.err)
				require.Equal(t, row.want, got)
			}
		})
	}
}

func TestAStreamHasALimit(t *testing.T) {
	t.Parallel()
	stream := "data: {\"a\":\"" + strings.Repeat("x", 100) + "\"}\n\n"
	got, err := eventsOf(strings.NewReader(strings.Repeat(stream, 3)), int64(2*len(stream)))
	require.ErrorIs(t, err, errTooLong)
	require.Len(t, got, 2)
	_, err = eventsOf(strings.NewReader(stream), 50)
	require.ErrorIs(t, err, errTooLong)
	got, err = eventsOf(strings.NewReader(stream), int64(len(stream)))
	require.NoError(t, err)
	require.Len(t, got, 1)
	// A line as long as the limit is no problem.
	got, err = eventsOf(strings.NewReader("data: {\"a\":\""+strings.Repeat("x", 1<<20)+"\"}\n\n"), 2<<20)
	require.NoError(t, err)
	require.Len(t, got, 1)
}

// A provider whose lines end in CR, or who sends nothing else, costs no more than
// others: a search from each of them to the end would take hours.
func TestLinesThatEndInCRAreReadInOneGo(t *testing.T) {
	t.Parallel()
	const n = 4 << 20
	stream := "data: " + strings.Repeat(" ", n) + "\n" + strings.Repeat("\r", n) + "data: {}\r\r"
	got, err := eventsOf(strings.NewReader(stream), 3*n)
	require.NoError(t, err)
	require.Equal(t, "{}", got[len(got)-1])
}

// exchangeOf feeds a stream to an exchange.
func exchangeOf(stream string) *exchange {
	x := &exchange{status: 200, limit: 1 << 20, started: time.Now()}
	x.watch = watch{cancel: func(error) {}, timer: time.NewTimer(time.Hour)}
	x.readEvents(strings.NewReader(stream))
	x.watch.timer.Stop()
	return x
}

func chunk(fields string) string {
	return fmt.Sprintf("data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",%s}\n\n", fields)
}

func TestChunksBecomeTheAnswerThatNeedsNoStream(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, stream, want string
	}{
		{
			"text",
			chunk(`"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]`) +
				chunk(`"choices":[{"index":0,"delta":{"content":"Hel"}}]`) + chunk(`"choices":[{"index":0,"delta":{"content":"lo <3 \u00e9"}}]`) +
				chunk(`"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]`) +
				chunk(`"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2,"cost":0.1}`),
			`{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hello <3 é"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":2,"cost":0.1}}`,
		},
		{
			"reasoning and unknown fields",
			chunk(`"provider":"P","system_fingerprint":"fp","choices":[{"index":0,"delta":{"role":"assistant","reasoning":"th"}}]`) +
				chunk(`"choices":[{"index":0,"delta":{"reasoning":"ink","reasoning_details":[{"t":1}]}}]`) +
				chunk(`"choices":[{"index":0,"delta":{"content":"x","reasoning_details":[ {"t":2} ]},"native_finish_reason":"end","finish_reason":"stop"}]`),
			`{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"x","reasoning":"think","reasoning_details":[{"t":1},{"t":2}]},"finish_reason":"stop","native_finish_reason":"end"}],"provider":"P","system_fingerprint":"fp"}`,
		},
		{
			"tool calls",
			chunk(`"choices":[{"index":0,"delta":{"role":"assistant","content":null,"tool_calls":[{"index":1,"id":"b","type":"function","function":{"name":"g","arguments":""}}]}}]`) +
				chunk(`"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":"{\"x\""}}]}}]`) +
				chunk(`"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":":1}"}},{"index":1,"id":"","function":{"name":"","arguments":"{}"}}]}}]`) +
				chunk(`"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]`),
			`{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}},{"id":"b","type":"function","function":{"name":"g","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}`,
		},
		{
			"tool calls without an index",
			chunk(`"choices":[{"index":0,"delta":{"content":"","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}},{"id":"b","type":"function","function":{"name":"g","arguments":"{"}}]}}]`) +
				chunk(`"choices":[{"index":0,"delta":{"tool_calls":[{"function":{"arguments":"}"}}]},"finish_reason":"tool_calls"}]`),
			`{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}},{"id":"b","type":"function","function":{"name":"g","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}`,
		},
		{
			"two choices out of order, log probabilities, audio, a function call",
			chunk(`"choices":[{"index":1,"delta":{"content":"b"},"logprobs":{"content":[{"token":"b"}],"refusal":null}}]`) +
				chunk(`"choices":[{"index":0,"delta":{"audio":{"id":"au","data":"QU"}}},{"index":1,"delta":{"content":"c"},"logprobs":{"content":[{"token":"c"}]}}]`) +
				chunk(`"choices":[{"index":0,"delta":{"audio":{"data":"JD","expires_at":9},"function_call":{"name":"f","arguments":"{"}},"finish_reason":"stop"}]`) +
				chunk(`"choices":[{"index":0,"delta":{"function_call":{"arguments":"}"}}},{"index":1,"delta":{"refusal":"no"},"finish_reason":"stop"}]`),
			`{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":null,"audio":{"id":"au","expires_at":9,"data":"QUJD"},"function_call":{"name":"f","arguments":"{}"}},"finish_reason":"stop"},{"index":1,"message":{"role":"assistant","content":"bc","refusal":"no"},"logprobs":{"content":[{"token":"b"},{"token":"c"}]},"finish_reason":"stop"}]}`,
		},
		{
			"text completion",
			"data: {\"id\":\"t\",\"object\":\"text_completion\",\"choices\":[{\"index\":0,\"text\":\"a\",\"logprobs\":null,\"finish_reason\":null}]}\n\n" +
				"data: {\"id\":\"t\",\"object\":\"text_completion\",\"choices\":[{\"index\":0,\"text\":\"b\",\"finish_reason\":\"length\"}]}\n\n",
			`{"id":"t","object":"text_completion","choices":[{"index":0,"text":"ab","finish_reason":"length"}]}`,
		},
		{
			"a message instead of deltas",
			chunk(`"choices":[{"index":0,"message":{"role":"assistant","content":"whole"},"finish_reason":"stop"}]`),
			`{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"whole"},"finish_reason":"stop"}]}`,
		},
		{
			"an annotation chunk first, as Azure sends it",
			"data: {\"id\":\"\",\"object\":\"\",\"created\":0,\"model\":\"\",\"choices\":[],\"prompt_filter_results\":[]}\n\n" +
				chunk(`"choices":[{"index":0,"delta":{"content":"x"},"content_filter_results":{"hate":{"filtered":false}},"finish_reason":"stop"}]`),
			`{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"x"},"content_filter_results":{"hate":{"filtered":false}},"finish_reason":"stop"}],"prompt_filter_results":[]}`,
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			x := exchangeOf(row.stream + "data: [DONE]\n\n")
			require.NoError(t, x.err)
			require.Nil(t, x.failed)
			require.True(t, x.done)
			require.Equal(t, row.want, string(x.assembled.body()))
			require.Positive(t, x.firstToken)
		})
	}
}

func TestOnlyTokensCountAsTokens(t *testing.T) {
	t.Parallel()
	for delta, token := range map[string]bool{
		`{}`: false, `{"role":"assistant"}`: false, `{"content":""}`: false, `{"content":null}`: false, `{"reasoning":""}`: false,
		`{"reasoning_details":[]}`: false, `{"content":" "}`: true, `{"reasoning":"a"}`: true, `{"reasoning_content":"a"}`: true,
		`{"refusal":"a"}`: true, `{"tool_calls":[{"index":0}]}`: true, `7`: false, `null`: false, `{"audio":{"data":"QQ=="}}`: true,
	} {
		x := exchangeOf(chunk(`"choices":[{"index":0,"delta":` + delta + `}]`))
		require.NoError(t, x.err)
		require.Equal(t, token, x.firstToken > 0, delta)
	}
}

func TestAnIndexFromTheProviderCannotExhaustTheMemory(t *testing.T) {
	t.Parallel()
	var stream strings.Builder
	for i := range maxChoices + 1 {
		fmt.Fprintf(&stream, "data: {\"choices\":[{\"index\":%d,\"delta\":{\"content\":\"x\"},\"finish_reason\":\"stop\"}]}\n\n", i*1000003)
	}
	x := exchangeOf(stream.String())
	require.ErrorIs(t, x.err, errTooLong)
	require.True(t, x.assembled.overflow)
}
