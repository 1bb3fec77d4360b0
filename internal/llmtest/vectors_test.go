package llmtest_test

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"understudy/internal/llmtest"
)

func TestEveryRecordedAnswerIsPlayedByteForByte(t *testing.T) {
	t.Parallel()
	all, err := llmtest.Vectors()
	require.NoError(t, err)
	require.Len(t, all, 67)
	for _, v := range all {
		t.Run(v.ID, func(t *testing.T) {
			t.Parallel()
			found, err := llmtest.FindVector(v.ID)
			require.NoError(t, err)
			p := llmtest.New(t, llmtest.Always(found.Reply()))
			got := post(t.Context(), t, p.URL()+"/chat/completions", strings.Replace(hello, `{`, fmt.Sprintf(`{"stream":%v,`, v.Stream), 1))
			require.NoError(t, got.err)
			require.Equal(t, v.Status, got.status)
			require.Equal(t, v.Body, got.body)
			for name, value := range v.Headers {
				require.Equal(t, value, got.header.Get(name))
			}
			require.NotEmpty(t, got.header.Get("Content-Type"))
		})
	}
	_, err = llmtest.FindVector("no-such")
	require.ErrorContains(t, err, `"no-such"`)
}

func TestACutRecordingBreaksAfterItsBody(t *testing.T) {
	t.Parallel()
	how := "connection closed"
	v := llmtest.Vector{Status: 200, Body: "<html>", Cut: &how}
	p := llmtest.New(t, llmtest.Always(v.Reply()))
	got := post(t.Context(), t, p.URL()+"/chat/completions", hello)
	require.ErrorIs(t, got.err, io.ErrUnexpectedEOF)
	require.Equal(t, "<html>", got.body)
	require.Equal(t, "text/html", got.header.Get("Content-Type"))
	require.Equal(t, "text/plain; charset=utf-8", llmtest.Vector{Body: "oops"}.Reply().Header["Content-Type"])
}
