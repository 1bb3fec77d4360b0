package openai

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestASecretShowsItselfToNobody(t *testing.T) {
	t.Parallel()
	cfg := Config{Name: "b", APIKey: "hush-hush", Headers: Headers{"X-Key": "hush-hush"}}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", cfg.APIKey, "headers", cfg.Headers, "config", cfg)
	encoded, err := json.Marshal(cfg)
	require.NoError(t, err)
	shown := []string{log.String(), string(encoded)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%t"} {
		shown = append(shown, fmt.Sprintf(verb, cfg.APIKey), fmt.Sprintf(verb, cfg.Headers), fmt.Sprintf(verb, &cfg.APIKey))
		shown = append(shown, fmt.Sprintf(verb, cfg), fmt.Sprintf(verb, struct{ S Secret }{cfg.APIKey}))
	}
	for _, text := range shown {
		require.NotContains(t, text, "hush")
		require.NotContains(t, text, fmt.Sprintf("%x", "hush"))
	}
	require.Equal(t, "[set]", fmt.Sprintf("%v", cfg.APIKey))
	require.Equal(t, "[set]", fmt.Sprintf("%x", cfg.APIKey))
	require.Equal(t, "[set]", cfg.APIKey.GoString())
	require.Equal(t, "[set]", cfg.APIKey.LogValue().String())
	require.Equal(t, "map[X-Key:[set]]", fmt.Sprintf("%#v", cfg.Headers))
	require.Empty(t, Secret("").String())
	require.Contains(t, string(encoded), `"APIKey":"[set]"`)
	text, err := cfg.APIKey.MarshalText()
	require.NoError(t, err)
	require.Equal(t, "[set]", string(text))
}

func TestAWrongConfigurationNamesEveryField(t *testing.T) {
	t.Parallel()
	_, err := New(Config{
		Kind: "anthropic", BaseURL: "https://user:hush@host/v1", APIKey: "hush hush", Timeout: -1, FirstTokenTimeout: -1,
		Concurrency: -1, PriceInput: -1, PriceOutput: math.NaN(), PriceHour: math.Inf(1), MaxResponseBytes: -1,
		Headers: Headers{"X Y": "1", "Idempotency-Key": "1", "X-A": "a\r\nb", "Content-Length": "1"},
		Models:  map[string]string{"a": ""}, Set: map[string]json.RawMessage{"model": json.RawMessage(`"x"`), "y": json.RawMessage("{")},
		Drop: []string{"model"},
	})
	require.Error(t, err)
	for _, field := range []string{
		"Name: ", "Kind: ", "BaseURL: ", "APIKey: ", "Timeout: ", "FirstTokenTimeout: ", "Concurrency: ", "PriceInput: ",
		"PriceOutput: ", "PriceHour: ", "MaxResponseBytes: ", `Headers: "X Y"`, `Headers: "Idempotency-Key"`, `Headers: "X-A"`,
		`Headers: "Content-Length"`, "Models: ", "Set: the model", `Set: the value of "y"`, "Drop: ",
	} {
		require.Contains(t, err.Error(), field)
	}
	require.NotContains(t, err.Error(), "hush")
	for _, url := range []string{"", "host/v1", "ftp://host", "http://", "http://h/v1?key=hush", "http://h/#x", "://", "http://h/?"} {
		_, err = New(Config{Name: "b", BaseURL: url})
		require.ErrorContains(t, err, "BaseURL: ", url)
		require.NotContains(t, err.Error(), "hush")
	}
}

func TestZeroValuesHaveDefaults(t *testing.T) {
	t.Parallel()
	c, err := New(Config{Name: "b", BaseURL: "http://h/v1//"})
	require.NoError(t, err)
	require.Equal(t, "b", c.Name())
	require.Equal(t, "http://h/v1", c.cfg.BaseURL)
	require.Equal(t, 30*time.Second, c.cfg.Timeout)
	require.Equal(t, int64(8<<20), c.cfg.MaxResponseBytes)
	require.Equal(t, 64, c.transport.MaxIdleConnsPerHost)
	require.Less(t, c.transport.IdleConnTimeout, time.Minute)
	require.NotNil(t, c.transport.Proxy)
	require.Positive(t, c.transport.HTTP2.SendPingTimeout)
	require.Empty(t, c.cfg.APIVersion)
	c, err = New(Config{Name: "b", Kind: KindAzure, BaseURL: "http://h/openai/", Concurrency: 3})
	require.NoError(t, err)
	require.Equal(t, "http://h", c.cfg.BaseURL)
	require.Equal(t, DefaultAPIVersion, c.cfg.APIVersion)
	require.Equal(t, 3, c.transport.MaxIdleConnsPerHost)
}

func TestMessagesAreCleanText(t *testing.T) {
	t.Parallel()
	r := newRedactor(Config{})
	require.Equal(t, "a\n\tb[31m\uFFFDc", r.line(" a\n\tb\x1b[31m\xffc\x00\u009b ", 100))
	require.Equal(t, "ä", r.line("ää", 3))
	require.Empty(t, r.line("ä", 1))
	require.Len(t, r.line(strings.Repeat("x", 5000), maxMessage), maxMessage)
	for _, text := range []string{
		"the key sk-ant-api03-abc_DEF-123 is wrong", "gsk_abcdefgh", "AIzaSyA-bc_d", "hf_abcdef", "Authorization: Bearer abc.def",
		"authorization: bearer+abcdef", "xai-12345", "key abcd****wxyz", "****1234",
	} {
		require.Contains(t, r.text(text), redacted, text)
	}
	for _, text := range []string{"ask-me for a task-list", "2 ** 3", "risk-free", "sky", "AI zone"} {
		require.Equal(t, text, r.text(text))
	}
	// A key too short to be one does not blank out words.
	require.Equal(t, "an x in it", newRedactor(Config{APIKey: "x"}).text("an x in it"))
}
