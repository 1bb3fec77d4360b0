package backend_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"understudy/internal/backend"
)

func TestEstimatesOfRequests(t *testing.T) {
	t.Parallel()
	picture := "data:image/png;base64," + base64.StdEncoding.EncodeToString(make([]byte, 30_000))
	for name, row := range map[string]struct {
		body          string
		input, output int64
	}{
		"a message":            {`{"model":"auto","messages":[{"role":"user","content":"12345678"}]}`, 2 + 4, 0},
		"rounded up":           {`{"messages":[{"role":"user","content":"123456789"}]}`, 3 + 4, 0},
		"two messages":         {`{"messages":[{"role":"system","content":"1234"},{"content":"12345678","role":"user"}]}`, 3 + 8, 0},
		"parts":                {`{"messages":[{"role":"user","content":[{"type":"text","text":"1234"},{"type":"text","text":"1234"}]}]}`, 2 + 4, 0},
		"a picture":            {`{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"` + picture + `"}}]}]}`, 1000 + 4, 0},
		"a picture elsewhere":  {`{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://example.com/a.png"}}]}]}`, 1000 + 4, 0},
		"an embedded text":     {`{"messages":[{"role":"user","content":"` + picture + `"}]}`, 1000 + 4, 0},
		"a sound":              {`{"messages":[{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"` + strings.Repeat("A", 4000) + `"}}]}]}`, 1000 + 4, 0},
		"small data":           {`{"messages":[{"role":"user","content":[{"data":"1234"}]}]}`, 1 + 4, 0},
		"escapes":              {`{"messages":[{"content":"\"\n\\\t"}]}`, 1 + 4, 0},
		"escaped letters":      {`{"messages":[{"content":"\u00e4\u00f6\u00fc\u00df"}]}`, 3 + 4, 0},
		"a prompt":             {`{"prompt":"12345678"}`, 2, 0},
		"prompts":              {`{"prompt":["1234","1234"]}`, 2, 0},
		"tokens":               {`{"prompt":[1,22,333]}`, 3, 0},
		"lists of tokens":      {`{"input":[[1,2],[3,4]]}`, 4, 0},
		"an embedding":         {`{"input":"1234","dimensions":256}`, 1, 0},
		"tools":                {`{"tools":[{"type":"function","function":{"name":"f"}}],"messages":[]}`, 5, 0},
		"what is not read":     {`{"user":"` + strings.Repeat("x", 400) + `","stop":["1234"],"prompt":"1234"}`, 1, 0},
		"a limit":              {`{"prompt":"1234","max_tokens":100}`, 1, 100},
		"the newer limit":      {`{"prompt":"1234","max_completion_tokens":300}`, 1, 300},
		"both limits":          {`{"prompt":"1234","max_completion_tokens":300,"max_tokens":100}`, 1, 300},
		"choices":              {`{"prompt":"1234","max_tokens":100,"n":3}`, 1, 300},
		"choices before":       {`{"n":3,"prompt":"1234","max_tokens":100}`, 1, 300},
		"no choices":           {`{"prompt":"1234","max_tokens":100,"n":0}`, 1, 100},
		"an odd limit":         {`{"prompt":"1234","max_tokens":1.5}`, 1, 0},
		"a negative limit":     {`{"prompt":"1234","max_tokens":-5}`, 1, 0},
		"a limit that is text": {`{"prompt":"1234","max_tokens":"7"}`, 1, 0},
		"a limit of a message": {`{"messages":[{"content":"1234","max_tokens":7}]}`, 1 + 4, 0},
		"a huge limit":         {`{"prompt":"1234","max_tokens":99999999999999999999999,"n":99999999999}`, 1, 1 << 40},
		"space":                {" {\n\t\"prompt\" : \"1234\" , \"max_tokens\" : 9 } \n", 1, 9},
		"an empty object":      {`{}`, 0, 0},
		"nothing":              {``, 0, 0},
		"no object":            {`["12345678"]`, 3, 0},
		"cut":                  {`{"prompt":"12345`, 4, 0},
		"cut in an escape":     {`{"prompt":"1234\`, 4, 0},
		"more behind":          {`{"prompt":""}x`, 4, 0},
	} {
		got := (&backend.Request{Body: []byte(row.body)}).Estimate()
		media := strings.Contains(row.body, "base64") || strings.Contains(row.body, "image_url") || strings.Contains(row.body, "input_audio")
		require.Equal(t, backend.Estimate{Input: row.input, Output: row.output, Media: media}, got, name)
	}
}

func FuzzEstimate(f *testing.F) {
	for _, seed := range []string{
		`{"messages":[{"role":"user","content":"a\"b\\"}],"max_tokens":7,"n":2}`, `{"prompt":[1,[2]]}`, `{"a":"\`, `{"a":"\u`, `}`, `{"input":"`, "\xff",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		e := (&backend.Request{Body: body}).Estimate()
		if e.Input < 0 || e.Output < 0 || e.Input > int64(1000*len(body)) {
			t.Fatalf("%+v of %d bytes", e, len(body))
		}
	})
}

func BenchmarkEstimate(b *testing.B) {
	for _, size := range []int{1 << 10, 1 << 20} {
		for name, text := range map[string]string{"plain": "word ", "escaped": `li\n"e`} {
			text = strings.ReplaceAll(text, `"`, `\"`)
			body := fmt.Appendf(nil, `{"messages":[{"role":"user","content":"%s"}],"max_tokens":100}`, strings.Repeat(text, size/len(text)))
			req := &backend.Request{Body: body}
			b.Run(fmt.Sprintf("%d KB %s", size>>10, name), func(b *testing.B) {
				b.SetBytes(int64(len(body)))
				b.ReportAllocs()
				for b.Loop() {
					if req.Estimate().Output != 100 {
						b.Fatal("not read")
					}
				}
			})
		}
	}
}

func TestAnEstimateThatIsKeptIsMadeOnceForAllCopies(t *testing.T) {
	t.Parallel()
	req := backend.Request{Body: []byte(`{"prompt":"twelve bytes"}`)}
	var kept backend.Measure
	req.Keep(&kept)
	other := req
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if other.Estimate() != (backend.Estimate{Input: 3}) {
				t.Error("another estimate")
			}
		})
	}
	all.Wait()
	req.Body = []byte(`{"prompt":""}`)
	require.Equal(t, int64(3), req.Estimate().Input, "it is not read again")
}
