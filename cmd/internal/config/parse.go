package config

import (
	"math"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"understudy/internal/backend/openai"
)

// maxDuration is the longest time a variable may hold, about a hundred years.
// A [time.Duration] ends at 292.
const maxDuration = 100 * 365 * 24 * time.Hour

// The parsers of single values.
type (
	anyText       struct{}
	secretText    struct{}
	truth         struct{}
	counting      struct{} // 0 and up
	atLeastOne    struct{}
	price         struct{}
	factor        struct{} // 1 and up
	length        struct{} // a time of 0 and up
	positive      struct{} // a time above 0
	byteSize      struct{}
	address       struct{} // host:port
	httpURL       struct{}
	natsURLs      struct{}
	level         struct{}
	format        struct{}
	backendKind   struct{}
	onLimit       struct{}
	workerName    struct{}
	subjectPrefix struct{}
)

// The settings of single values.
type (
	textSetting     = setting[string, anyText]
	secretSetting   = setting[openai.Secret, secretText]
	boolSetting     = setting[bool, truth]
	countSetting    = setting[int, counting]
	positiveCount   = setting[int, atLeastOne]
	priceSetting    = setting[float64, price]
	factorSetting   = setting[float64, factor]
	durationSetting = setting[time.Duration, length]
	positiveTime    = setting[time.Duration, positive]
	sizeSetting     = setting[int64, byteSize]
	addressSetting  = setting[string, address]
	urlSetting      = setting[string, httpURL]
	serversSetting  = setting[[]*url.URL, natsURLs]
)

func (anyText) parse(text string) (string, error) {
	if strings.ContainsFunc(text, unicode.IsControl) {
		return "", flawed("remove it", "holds a control character")
	}
	return text, nil
}

func (secretText) parse(text string) (openai.Secret, error) {
	if strings.ContainsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return "", flawed("set it to the secret alone", "holds a space, a line break or a control character")
	}
	return openai.Secret(text), nil
}

func (secretText) show(s openai.Secret) string { return s.String() }

func (truth) parse(text string) (bool, error) {
	switch strings.ToLower(text) {
	case "true", "1", "yes", "on", "t", "y":
		return true, nil
	case "false", "0", "no", "off", "f", "n":
		return false, nil
	}
	return false, flawed("use true or false", "%s is neither true nor false", quoted(text))
}

func (counting) parse(text string) (int, error) { return wholeNumber(text, 0) }

func (atLeastOne) parse(text string) (int, error) { return wholeNumber(text, 1) }

func wholeNumber(text string, least int) (int, error) {
	mend := "use " + strconv.Itoa(least) + " or more"
	n, err := strconv.ParseInt(text, 10, 32)
	switch {
	case err != nil:
		return 0, flawed(mend, "%s is not a whole number", quoted(text))
	case n < int64(least):
		return 0, flawed(mend, "%d is too small", n)
	}
	return int(n), nil
}

func (price) parse(text string) (float64, error) {
	const mend = "use US dollars, such as 0.15"
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(f) || f < 0 || f > 1e9 {
		return 0, flawed(mend, "%s is not a price", quoted(text))
	}
	return f, nil
}

func (factor) parse(text string) (float64, error) {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(f) || f < 1 || f > 1e6 {
		return 0, flawed("use 1 or more", "%s is not a factor", quoted(text))
	}
	return f, nil
}

func (length) parse(text string) (time.Duration, error) {
	const mend = "use seconds (5.0) or a Go duration (750ms, 168h)"
	var d time.Duration
	if seconds, err := strconv.ParseFloat(text, 64); err == nil && strings.Trim(text, "+-.0123456789") == "" {
		if math.Abs(seconds) > maxDuration.Seconds() {
			return 0, flawed("use 100 years at most", "%s seconds are too long", quoted(text))
		}
		d = time.Duration(math.Round(seconds * float64(time.Second)))
	} else if d, err = time.ParseDuration(text); err != nil {
		return 0, flawed(mend, "%s is not a duration", quoted(text))
	}
	switch {
	case d < 0:
		return 0, flawed("use 0 or more", "%s is negative", quoted(text))
	case d > maxDuration:
		return 0, flawed("use 100 years at most", "%s is too long", quoted(text))
	}
	return d, nil
}

func (positive) parse(text string) (time.Duration, error) {
	d, err := length{}.parse(text)
	if err == nil && d == 0 {
		err = flawed("use a time above 0", "%s is no time", quoted(text))
	}
	return d, err
}

func (address) parse(text string) (string, error) {
	const mend = "use host:port, such as 127.0.0.1:8080"
	_, port, err := net.SplitHostPort(text)
	if err != nil {
		return "", flawed(mend, "%s is not an address", quoted(text))
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", flawed("use a port of 0 to 65535", "%s has no usable port", quoted(text))
	}
	return text, nil
}

func (httpURL) parse(text string) (string, error) {
	const mend = "use a URL such as https://openrouter.ai/api/v1"
	u, err := url.Parse(text)
	switch {
	case err != nil: // its text holds the URL, which may hold a password
		return "", flawed(mend, "is not a URL")
	case u.Scheme != "http" && u.Scheme != "https":
		return "", flawed(mend, "does not start with http:// or https://")
	case u.Hostname() == "":
		return "", flawed(mend, "has no host")
	case u.User != nil:
		return "", flawed("put credentials into API_KEY or HEADERS", "holds a user or a password")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "", flawed("end it with the path; API_VERSION and HEADERS hold the rest", "has a query or a fragment")
	}
	return text, nil
}

func (natsURLs) parse(text string) ([]*url.URL, error) {
	const mend = "use nats://host:4222, or several with commas between"
	var servers []*url.URL
	var wrong []error
	list := split(text, ",")
	for i, server := range list {
		if !strings.Contains(server, "://") {
			server = "nats://" + server
		}
		u, err := url.Parse(server)
		if err != nil { // its text holds the URL, which may hold a password
			wrong = append(wrong, flawed(mend, "server %d is not a URL", i+1))
			continue
		}
		if u.Hostname() == "" {
			wrong = append(wrong, flawed(mend, "server %d has no host", i+1))
		}
		if !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
			wrong = append(wrong, flawed(mend, "server %d has a scheme that is not nats, tls, ws or wss", i+1))
		}
		servers = append(servers, u)
	}
	if len(list) == 0 {
		return nil, flawed(mend, "names no server")
	}
	return faultless(servers, wrong)
}

// show lists the servers without users and passwords.
func (natsURLs) show(servers []*url.URL) string {
	list := make([]string, len(servers))
	for i, u := range servers {
		list[i] = u.Scheme + "://" + u.Host
		if u.User != nil {
			list[i] = u.Scheme + "://[set]@" + u.Host
		}
	}
	return strings.Join(list, ",")
}

// split cuts text at sep and drops the space around the parts and empty parts.
func split(text, sep string) []string {
	var parts []string
	for part := range strings.SplitSeq(text, sep) {
		if part = strings.TrimSpace(part); part != "" {
			parts = append(parts, part)
		}
	}
	return parts
}
