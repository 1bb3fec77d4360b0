package openai

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
)

// errBroken ends a body in the middle.
var errBroken = errors.New("broken")

func TestABodyIsReadTheSameWhateverItsLengthIsSaidToBe(t *testing.T) {
	t.Parallel()
	arrives := map[string]func(io.Reader) io.Reader{
		"at once":      func(r io.Reader) io.Reader { return r },
		"with the end": iotest.DataErrReader,
		"in halves":    iotest.HalfReader,
		"in bytes":     iotest.OneByteReader,
		"broken":       func(r io.Reader) io.Reader { return io.MultiReader(r, iotest.ErrReader(errBroken)) },
	}
	sizes := []int{0, 1, 2, 15, 16, 300, lookahead - 1, lookahead, lookahead + 1, maxAhead - 1, maxAhead, maxAhead + 1, 2 * maxAhead}
	for _, size := range sizes {
		text := []byte("{" + strings.Repeat("x", size))[:size]
		for name, arrive := range arrives {
			for _, limit := range []int64{int64(size) - 1, int64(size), int64(size) + 1, 1 << 20} {
				for _, length := range []int64{-1, int64(size), int64(size) - 1, int64(size) + 1, 1 << 40} {
					if limit < 1 || length < -1 {
						continue
					}
					what := fmt.Sprintf("%d bytes, said to be %d, %s, limit %d", size, length, name, limit)
					resp := &http.Response{StatusCode: http.StatusOK, ContentLength: length, Body: io.NopCloser(arrive(bytes.NewReader(text)))}
					x := &exchange{status: 200, limit: limit, header: http.Header{}}
					x.read(resp)
					want, failure := text[:min(size, int(limit))], error(nil)
					switch {
					case size > int(limit):
						failure = errTooLong
					case name == "broken":
						failure = errBroken
					}
					require.Equal(t, failure, x.err, what)
					require.True(t, bytes.Equal(want, x.raw), what)
					require.Nil(t, x.assembled, what)
				}
			}
		}
	}
}

func TestABodyIsNotLookedAtForEver(t *testing.T) {
	t.Parallel()
	event := chunk(`"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}]`)
	for blanks, streamed := range map[int]bool{0: true, lookahead - 1: true, lookahead: false, maxAhead - 1000: false} {
		body := strings.Repeat("\n", blanks) + event
		for _, length := range []int64{-1, int64(len(body))} {
			x := &exchange{status: 200, limit: 1 << 20, header: http.Header{"Content-Type": {"text/event-stream"}}}
			x.watch = watch{cancel: func(error) {}, timer: time.NewTimer(time.Hour)}
			x.read(&http.Response{StatusCode: http.StatusOK, ContentLength: length, Body: io.NopCloser(strings.NewReader(body))})
			x.watch.timer.Stop()
			require.NoError(t, x.err)
			require.Equal(t, streamed, x.assembled != nil, "%d blank lines, length %d", blanks, length)
			if !streamed {
				require.Equal(t, body, string(x.raw))
			}
		}
	}
}

func TestAStreamOfKnownLengthIsHandedOutAsItComes(t *testing.T) {
	t.Parallel()
	for mark, kind := range map[string]string{"": "text/plain", "\xef\xbb\xbf": "text/event-stream"} {
		first := mark + chunk(`"choices":[{"index":0,"delta":{"content":"a"}}]`)
		rest := chunk(`"choices":[{"index":0,"delta":{"content":"b"},"finish_reason":"stop"}]`) + "data: [DONE]\n\n"
		goOn := make(chan struct{})
		c := newTestClient(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.Header().Set("Content-Length", strconv.Itoa(len(first+rest)))
			_, _ = io.WriteString(w, first)
			w.(http.Flusher).Flush()
			select { // the first chunk has to arrive before there is a second
			case <-goOn:
			case <-r.Context().Done():
			}
			_, _ = io.WriteString(w, rest)
		})))
		chunks := 0
		req := chat(true)
		req.Chunk = func([]byte) {
			if chunks++; chunks == 1 {
				close(goOn)
			}
		}
		resp, err := c.Complete(t.Context(), req)
		require.NoError(t, err)
		require.Equal(t, 2, chunks)
		require.Contains(t, string(resp.Body), `"content":"ab"`)
	}
}

func TestAnswersOfEveryLengthTravelByteForByte(t *testing.T) {
	t.Parallel()
	lengths := []int{len(goodAnswer), lookahead - 1, lookahead, lookahead + 1, maxAhead - 1, maxAhead, maxAhead + 1, 4*maxAhead - 1, 4 * maxAhead, 5 * maxAhead, 17 * maxAhead}
	for _, chunked := range []string{"", "chunked"} {
		for _, length := range lengths {
			answer := goodAnswer + strings.Repeat(" ", length-len(goodAnswer))
			c := newTestClient(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if w.Header().Set("Content-Length", strconv.Itoa(length)); chunked != "" {
					w.Header().Del("Content-Length")
					w.(http.Flusher).Flush()
				}
				_, _ = io.WriteString(w, answer)
			})))
			resp, err := c.Complete(t.Context(), chat(false))
			require.NoError(t, err)
			sameBytes(t, answer, resp.Body)
			require.Equal(t, int64(500000), resp.Usage.OutputTokens)
		}
	}
}

func TestABodySaidToBeLongTakesNoMemoryBeforeItIsThere(t *testing.T) {
	t.Parallel()
	for length, size := range map[int64]int{
		-1: lookahead, 0: 16, 300: 301, maxAhead: maxAhead + 1, maxAhead + 1: lookahead, 1 << 50: lookahead,
	} {
		body := newBody(&http.Response{ContentLength: length, Body: http.NoBody}, 1<<60)
		require.Equal(t, size, body.Size(), length)
	}
	require.Equal(t, lookahead, newBody(&http.Response{ContentLength: 300, Body: http.NoBody}, 299).Size(), "it is too long anyway")
}

func TestTheShortWaysFindWhatTheLongOnesDo(t *testing.T) {
	t.Parallel()
	r := newRedactor(Config{})
	for _, text := range shortcutTexts() {
		requireSameShortcuts(t, r, text)
	}
	for _, text := range []string{
		"sk-abc", "rk-abc", "pk-abc", "gsk_abc", "AIzaabc", "hf_abc", "xai-abc", "pplx-abc", "nvapi-abc", "r8_abc", "fw_abc", "AKIAabc", "ASIAabc",
		"bearer abcd", "BEARER+abcd", "Basic abcd", "ba\u017fic abcd", "***", "a***b",
	} {
		require.Equal(t, redacted, r.text(text))
	}
	for text, html := range map[string]bool{
		"": false, " ": false, "<": false, "<!DOCTYPE x": true, "\n <HTML": true, "<p> <Html>": true, "x <html": false, "<p>": false,
		strings.Repeat(" ", 1023) + "<html": false, strings.Repeat(" ", 1019) + "<html": true, "<" + strings.Repeat(" ", 1018) + "<html": true,
		"<" + strings.Repeat(" ", 1019) + "<html": false, "\xef\xbb\xbf<html>": false,
	} {
		require.Equal(t, html, isHTML([]byte(text)), "%q", text)
	}
}

// shortcutTexts are texts that what is looked for is in, and almost in.
func shortcutTexts() []string {
	parts := []string{
		"", " ", "+", "bearer", "Basic", "ba\u017fic", "abcd", "sk-", "k-", "gsk_", "AIza", "hf_", "xai-", "pplx-", "nvapi-", "r8_", "fw_", "AKIA",
		"ASIA", "***", "**", "\xff", "<", "<html", "<!doctype", "chatcmpl-8f2", "\u212a-", "\n",
	}
	texts := slices.Clone(parts)
	for _, a := range parts {
		for _, b := range parts {
			texts = append(texts, a+b, a+b+"abcd", " "+a+b+"abcd")
		}
	}
	return texts
}

// requireSameShortcuts requires what is found without looking at everything.
func requireSameShortcuts(t *testing.T, r *redactor, text string) {
	t.Helper()
	want := text
	for _, pattern := range r.patterns {
		want = pattern.ReplaceAllString(want, redacted)
	}
	require.Equal(t, want, r.text(text))
	head := strings.ToLower(string(bytes.TrimSpace([]byte(text[:min(len(text), 1024)]))))
	html := strings.HasPrefix(head, "<!doctype") || strings.HasPrefix(head, "<html") ||
		strings.HasPrefix(head, "<") && strings.Contains(head, "<html")
	require.Equal(t, html, isHTML([]byte(text)))
}

func FuzzShortcuts(f *testing.F) {
	for _, text := range shortcutTexts() {
		f.Add(text)
	}
	r := newRedactor(Config{})
	f.Fuzz(func(t *testing.T, text string) {
		requireSameShortcuts(t, r, text)
		// A body read in one piece is what is read of it bit by bit.
		want, failure := io.ReadAll(&cappedReader{r: strings.NewReader(text), left: 20})
		body := newBody(&http.Response{ContentLength: int64(len(text)), Body: io.NopCloser(strings.NewReader(text))}, 20)
		got, err := readAll(body, 20, int64(len(text)))
		require.Equal(t, failure, err)
		require.Equal(t, string(want), string(got))
	})
}

func TestALongBodyTakesMemoryAsItComes(t *testing.T) {
	t.Parallel()
	const limit = 9 * maxAhead
	for _, size := range []int{0, 1, maxAhead - 1, maxAhead, maxAhead + 1, 4 * maxAhead, 4*maxAhead + 1, limit - 1, limit, limit + 1} {
		text := strings.Repeat("0123456789abcdef", size/16+1)[:size]
		want, failure := io.ReadAll(&cappedReader{r: strings.NewReader(text), left: limit})
		for _, length := range []int64{-1, 0, int64(size) - 1, int64(size), int64(size) + 1, limit} {
			got, err := readLong(&cappedReader{r: iotest.HalfReader(strings.NewReader(text)), left: limit}, length)
			require.Equal(t, failure, err)
			require.True(t, bytes.Equal(want, got), "%d of %d bytes", len(got), size)
			require.LessOrEqual(t, cap(got), max(maxAhead, 4*size), "length %d", length)
		}
		broken := errors.New("broken")
		got, err := readLong(io.MultiReader(strings.NewReader(text), iotest.ErrReader(broken)), int64(size)+10)
		require.Equal(t, broken, err)
		require.True(t, bytes.Equal([]byte(text), got))
	}
}

// BenchmarkReadBody reads an answer of 2 KB whose length is known.
func BenchmarkReadBody(b *testing.B) {
	text := "{" + strings.Repeat("x", 2<<10)
	b.ReportAllocs()
	for b.Loop() {
		x := exchange{status: 200, limit: 1 << 20}
		x.read(&http.Response{ContentLength: int64(len(text)), Body: io.NopCloser(strings.NewReader(text))})
	}
}

// BenchmarkRedactRequestID is what every success pays.
func BenchmarkRedactRequestID(b *testing.B) {
	r := newRedactor(Config{APIKey: "sk-secret-0123456789"})
	b.ReportAllocs()
	for b.Loop() {
		r.line("chatcmpl-9f2b1c0d4e5f60718293a4b5c6d7e8f9", maxWord)
	}
}

// BenchmarkIsHTML looks at an answer that is none.
func BenchmarkIsHTML(b *testing.B) {
	body := []byte(strings.Repeat(goodAnswer, 4))
	b.ReportAllocs()
	for b.Loop() {
		isHTML(body)
	}
}
