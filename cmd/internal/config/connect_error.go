package config

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/nats-io/nats.go"
)

// ConnectError says why NATS cannot be reached, on one line that tells what to
// do and holds no secret.
type ConnectError struct {
	text string
	err  error
}

// Error implements error.
func (e *ConnectError) Error() string { return e.text }

// Unwrap returns the cause. Its text may hold a secret: do not print it.
func (e *ConnectError) Unwrap() error { return e.err }

// explain says for people why connecting failed.
func (n NATS) explain(err error) string {
	if refused(err) {
		return fmt.Sprintf("NATS at %s refused the credentials; %s", n.Servers(), n.credentials())
	}
	why, hint := n.masked(err), n.hint
	var (
		dns       *net.DNSError
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
	)
	switch {
	case errors.Is(err, nats.ErrNoServers): // what the client makes of it
		why = "connection refused"
	case errors.Is(err, nats.ErrTimeout), errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		why = "no answer in time"
	case errors.As(err, &dns):
		why, hint = "no such host", "check NATS_URL"
		if dns.IsTimeout {
			why = "the name server does not answer"
		}
	case errors.As(err, &authority):
		why, hint = "its certificate is signed by an unknown authority", "set NATS_CA to the authority's certificate"
	case errors.As(err, &host):
		why, hint = "its certificate is for another host", "check NATS_URL"
	case errors.Is(err, nats.ErrSecureConnWanted):
		why, hint = "it does not speak TLS", "use nats:// in NATS_URL, and neither NATS_CA nor NATS_CERT"
	}
	return fmt.Sprintf("cannot reach NATS at %s: %s; %s", n.Servers(), strings.TrimPrefix(why, "nats: "), hint)
}

// refused reports whether the server is there and wants other credentials.
func refused(err error) bool {
	for _, auth := range []error{
		nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired,
		nats.ErrNkeysNotSupported,
	} {
		if errors.Is(err, auth) {
			return true
		}
	}
	return false
}

// credentials says which variables to look at when the credentials are wrong.
func (n NATS) credentials() string {
	s := &n.spec
	var used []string
	for _, v := range []variable{&s.Creds, &s.User, &s.Password, &s.Token, &s.Nkey, &s.Cert, &s.Context} {
		if v.shown() != "" {
			used = append(used, v.label())
		}
	}
	for _, u := range s.URL.value {
		if u.User != nil {
			used = append(used, "the user in NATS_URL")
			break
		}
	}
	if len(used) == 0 {
		return "set NATS_CREDS, or NATS_USER and NATS_PASSWORD, or NATS_TOKEN"
	}
	return "check " + strings.Join(used, ", ")
}
