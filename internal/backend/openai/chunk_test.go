package openai

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// streams are streams with which a reader of chunks can go wrong.
func streams(tb testing.TB) []string {
	tb.Helper()
	first := chunk(`"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]`)
	list := []string{longStream()[:1500] + "\n\ndata: [DONE]\n\n"}
	for _, choice := range []string{
		`{"index":0,"delta":{"content":"a"},"finish_reason":null,"logprobs":null}`,
		`{"delta":{"content":"a","role":"assistant"},"finish_reason":null,"index":0}`,
		`{"delta":{"content":"\u00e4\n"}}`, `{"delta":{"content":"a","content":"b"},"index":0}`,
		`{"delta":{"content":"a"},"delta":{"content":"b"}}`, `{"index":0,"index":1,"delta":{"content":"a"}}`,
		`{"index":1,"delta":{"content":"a"}}`, `{"index":0,"delta":{"content":"a","role":"user"}}`,
		`{"index":0,"delta":{"content":"a","role":"","reasoning":null}}`, `{"index":0,"delta":{"reasoning":"r"}},{"index":0,"delta":{"content":"a"}}`,
		`{"index":0,"delta":{"content":["a"]}}`, `{"index":0,"delta":{"content":7}}`, `{"index":0,"delta":{"tool_calls":[{"index":0,"id":"t"}]}}`,
		`{"index":0,"delta":{"content":"","audio":{"data":"x"}}}`, `{"index":0,"delta":null}`, `{"index":0,"delta":{}}`, `{"index":0,"delta":[]}`,
		`{"index":0,"text":"a"}`, `{"index":0,"text":null,"delta":{"content":"a"}}`, `{"index":0,"message":{"content":"a"}}`,
		`{"index":0,"delta":{"content":"a"},"error":{"code":1}}`, `{"index":0,"delta":{"content":"a"},"stop_reason":null,"x":1}`,
		`{"index":"0","delta":{"content":"a"}}`, `{"index":0.0,"delta":{"content":"a"}}`, `{"index":00001,"delta":{"content":"a"}}`,
		`{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}`, `{"index":0,"delta":{"cont\u0065nt":"a"}}`, `null`, ``,
	} {
		second := chunk(`"choices":[` + choice + `]`)
		list = append(list, first+second+second+"data: [DONE]\n\n", second+first+second)
	}
	for _, broken := range []string{`}`, `]`, `{}`, `1`, ``, `,]`, `,{}]`, `]]`, `]}`} {
		list = append(list, first+`data: {"choices":[{"delta":{"content":"a"}}`+broken+"}\n\n"+first)
	}
	// Of two members of one name the last one counts, and no number is no index.
	reasoned := first + chunk(`"choices":[{"index":0,"delta":{"reasoning":"r"}}]`)
	for _, choice := range []string{
		`{"index":0,"delta":{"content":"a","content":null}}`, `{"index":0,"delta":{"content":null,"content":"a"}}`,
		`{"index":0,"delta":{"content":"a"},"delta":{}}`, `{"index":0,"delta":{"content":"a"},"delta":{"reasoning":"b"}}`,
		`{"index":0,"delta":{"content":"a","reasoning":"b"}}`,
	} {
		list = append(list, reasoned+chunk(`"choices":[`+choice+`]`)+reasoned)
	}
	for _, index := range []string{"12345", "null", "-2", "1.5", `"a"`, "-1"} {
		list = append(list, chunk(`"choices":[{"index":-1,"delta":{"content":"x"}}]`)+chunk(`"choices":[{"index":`+index+`,"delta":{"content":"y"}}]`))
	}
	for _, rest := range []string{
		`"choices":[]`, `"choices":null`, `"usage":null,"choices":[{"delta":{"content":"a"}}]`, `"usage":{"prompt_tokens":1},"choices":[{"delta":{"content":"a"}}]`,
		`"error":null,"choices":[{"delta":{"content":"a"}}]`, `"error":{"message":"overloaded"},"choices":[{"delta":{"content":"a"}}]`,
		`"type":"error","choices":[{"delta":{"content":"a"}}]`, `"object":"error","choices":[{"delta":{"content":"a"}}]`,
		`"model":"n","choices":[{"delta":{"content":"a"}}]`, `"model":"","choices":[{"delta":{"content":"a"}}],"choices":[{"delta":{"content":"b"}}]`,
		`"detail":"x"`, `"choices":[{"delta":{"content":"a"}}],"detail":"x"`,
	} {
		list = append(list, first+chunk(rest)+chunk(rest)+"data: [DONE]\n\n")
	}
	legacy := `data: {"id":"c","object":"text_completion","choices":[{"index":0,"text":"a","finish_reason":null}]}` + "\n\n"
	list = append(list, legacy+legacy+legacy, first+legacy+first+legacy)
	two := chunk(`"choices":[{"index":0,"delta":{"content":"a"}},{"index":1,"delta":{"content":"b"}}]`)
	for _, choice := range []string{`{"index":1,"delta":{"content":"c"}}`, `{"delta":{"content":"c"},"index":1}`, `{"delta":{"content":"c"}}`} {
		list = append(list, two+chunk(`"choices":[`+choice+`]`)+two)
	}
	for _, r := range recordedAnswers(tb) {
		if r.Stream {
			list = append(list, r.Body)
		}
	}
	return list
}

// streamRead is what became of a stream: all that can be seen of it.
type streamRead struct {
	body, raw, stray, odd string
	chunks                []string
	tokens                []bool
	failed                *Verdict
	err                   error
	finished, choices     int
	overflow              bool
}

// readStream reads the events of a stream with one of the two readers, and
// reports how many the quick one took.
func readStream(stream string, quickly bool) (streamRead, int) {
	x := &exchange{status: 200, limit: 1 << 20, started: time.Now(), assembled: new(assembly)}
	x.watch = watch{cancel: func(error) {}, timer: time.NewTimer(time.Hour)}
	defer x.watch.timer.Stop()
	var r streamRead
	x.chunk = func(data []byte) {
		r.chunks = append(r.chunks, string(data))
		r.tokens = append(r.tokens, x.firstToken != 0)
		x.firstToken = 0
	}
	events := newEventReader(strings.NewReader(stream), x.limit)
	taken := 0
	for {
		e, err := events.next()
		if err != nil || isDone(e.data) {
			break
		}
		token, quick := false, false
		if quickly && !e.failed {
			token, quick = x.assembled.quick(e.data)
		}
		var goesOn bool
		if quick {
			taken++
			goesOn = x.grown(e, token)
		} else {
			goesOn = x.unusual(e)
		}
		if !goesOn {
			break
		}
	}
	r.body, r.raw, r.stray, r.odd = string(x.assembled.body()), string(x.raw), string(events.stray), string(x.odd)
	r.failed, r.err, r.overflow = x.failed, x.err, x.assembled.overflow
	r.finished, r.choices = x.assembled.finished()
	return r, taken
}

func sameStream(tb testing.TB, stream string) int {
	tb.Helper()
	want, _ := readStream(stream, false)
	got, taken := readStream(stream, true)
	require.Equal(tb, want, got, "%q", stream)
	return taken
}

func TestAChunkThatIsReadQuicklyIsTheSame(t *testing.T) {
	t.Parallel()
	require.Greater(t, sameStream(t, longStream()), 190)
	for _, stream := range streams(t) {
		sameStream(t, stream)
	}
	random := rand.New(rand.NewPCG(7, 8))
	texts := streams(t)
	taken := 0
	for range 2_000 {
		taken += sameStream(t, string(mutated(random, texts)))
	}
	require.Greater(t, taken, 150)
}

func FuzzChunks(f *testing.F) {
	for _, stream := range streams(f) {
		f.Add(stream)
	}
	f.Fuzz(func(t *testing.T, stream string) { sameStream(t, stream) })
}
