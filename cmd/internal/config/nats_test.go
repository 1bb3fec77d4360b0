package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"

	"understudy/internal/natstest"
)

// submit reads the environment and expects no problem with it.
func submit(t *testing.T, vars ...string) *Submit {
	t.Helper()
	s := ForSubmit(environment(with(nil, vars...)))
	require.Empty(t, findings(s.Report.Problems))
	return s
}

// connects connects as the environment says and asks the server whether it is there.
func connects(t *testing.T, vars ...string) {
	t.Helper()
	conn, err := submit(t, vars...).NATS.Connect()
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.Flush())
}

// fails connects and returns the one line that is said about the failure.
func fails(t *testing.T, vars ...string) string {
	t.Helper()
	conn, err := submit(t, vars...).NATS.Connect()
	require.Nil(t, conn)
	var connect *ConnectError
	require.ErrorAs(t, err, &connect)
	require.Error(t, connect.Unwrap())
	require.NotContains(t, err.Error(), planted)
	require.NotContains(t, err.Error(), "\n")
	return err.Error()
}

// at is a server's address with other user information.
func at(url, user string) string { return strings.Replace(url, "nats://", "nats://"+user+"@", 1) }

func TestConnectWithUserAndPassword(t *testing.T) {
	t.Parallel()
	s := natstest.RunWith(t, natstest.Options{Config: `authorization { user: me, password: ` + planted + ` }`})
	connects(t, "NATS_URL", s.URL, "NATS_USER", "me", "NATS_PASSWORD", planted)
	connects(t, "NATS_URL", at(s.URL, "me:"+planted))

	shown := strings.TrimPrefix(s.URL, "nats://")
	require.Equal(t, "NATS at nats://"+shown+" refused the credentials; set NATS_CREDS, or NATS_USER and NATS_PASSWORD, or NATS_TOKEN",
		fails(t, "NATS_URL", s.URL))
	require.Equal(t, "NATS at nats://"+shown+" refused the credentials; check NATS_USER, NATS_PASSWORD",
		fails(t, "NATS_URL", s.URL, "NATS_USER", "you", "NATS_PASSWORD", planted))
	require.Equal(t, "NATS at nats://[set]@"+shown+" refused the credentials; check the user in NATS_URL",
		fails(t, "NATS_URL", at(s.URL, "you:"+planted)))
	require.Equal(t, "NATS at nats://"+shown+" refused the credentials; check NATS_TOKEN",
		fails(t, "NATS_URL", s.URL, "NATS_TOKEN", planted))
}

func TestConnectWithAToken(t *testing.T) {
	t.Parallel()
	s := natstest.RunWith(t, natstest.Options{Config: `authorization { token: ` + planted + ` }`})
	connects(t, "NATS_URL", s.URL, "NATS_TOKEN", planted)
	connects(t, "NATS_URL", s.URL, "NATS_USER", planted) // as in the nats command
	connects(t, "NATS_URL", at(s.URL, planted))
	require.Contains(t, fails(t, "NATS_URL", s.URL, "NATS_TOKEN", "x"+planted), "check NATS_TOKEN")
}

func TestConnectWithAnNkey(t *testing.T) {
	t.Parallel()
	user, err := nkeys.CreateUser()
	require.NoError(t, err)
	public, err := user.PublicKey()
	require.NoError(t, err)
	seed, err := user.Seed()
	require.NoError(t, err)
	s := natstest.RunWith(t, natstest.Options{Config: `authorization { users: [ { nkey: ` + public + ` } ] }`})
	connects(t, "NATS_URL", s.URL, "NATS_NKEY", file(t, string(seed)))
	require.Contains(t, fails(t, "NATS_URL", s.URL, "NATS_NKEY", file(t, planted)), "NATS_NKEY: ")
}

func TestConnectWithACredentialsFile(t *testing.T) {
	t.Parallel()
	operator, account, user := newKey(t, nkeys.CreateOperator), newKey(t, nkeys.CreateAccount), newKey(t, nkeys.CreateUser)
	system := newKey(t, nkeys.CreateAccount)
	claims := jwt.NewOperatorClaims(public(t, operator))
	claims.SystemAccount = public(t, system)
	operatorJWT, err := claims.Encode(operator)
	require.NoError(t, err)
	accountJWT, err := jwt.NewAccountClaims(public(t, account)).Encode(operator)
	require.NoError(t, err)
	systemJWT, err := jwt.NewAccountClaims(public(t, system)).Encode(operator)
	require.NoError(t, err)
	s := natstest.RunWith(t, natstest.Options{Config: fmt.Sprintf("operator: %s\nresolver: MEMORY\nresolver_preload: { %s: %s, %s: %s }\n",
		operatorJWT, public(t, account), accountJWT, public(t, system), systemJWT)})
	connects(t, "NATS_URL", s.URL, "NATS_CREDS", credentials(t, user, account))
	require.Contains(t, fails(t, "NATS_URL", s.URL), "refused the credentials; set NATS_CREDS, or")
	stranger := newKey(t, nkeys.CreateAccount)
	require.Contains(t, fails(t, "NATS_URL", s.URL, "NATS_CREDS", credentials(t, user, stranger)), "refused the credentials; check NATS_CREDS")
}

// credentials writes a credentials file for a user of an account.
func credentials(t *testing.T, user, account nkeys.KeyPair) string {
	t.Helper()
	userJWT, err := jwt.NewUserClaims(public(t, user)).Encode(account)
	require.NoError(t, err)
	seed, err := user.Seed()
	require.NoError(t, err)
	creds, err := jwt.FormatUserConfig(userJWT, seed)
	require.NoError(t, err)
	return file(t, string(creds))
}

func newKey(t *testing.T, create func() (nkeys.KeyPair, error)) nkeys.KeyPair {
	t.Helper()
	key, err := create()
	require.NoError(t, err)
	return key
}

func public(t *testing.T, key nkeys.KeyPair) string {
	t.Helper()
	text, err := key.PublicKey()
	require.NoError(t, err)
	return text
}

func TestConnectWithCertificates(t *testing.T) {
	t.Parallel()
	ca, cert, key := certificates(t)
	s := natstest.RunWith(t, natstest.Options{Config: fmt.Sprintf(
		"tls { cert_file: %q, key_file: %q, ca_file: %q, verify: true }\n", cert, key, ca)})
	url := strings.Replace(s.URL, "nats://", "tls://", 1)
	connects(t, "NATS_URL", url, "NATS_CA", ca, "NATS_CERT", cert, "NATS_KEY", key)
	require.Contains(t, fails(t, "NATS_URL", url, "NATS_CERT", cert, "NATS_KEY", key),
		"its certificate is signed by an unknown authority; set NATS_CA to the authority's certificate")
	require.Contains(t, fails(t, "NATS_URL", strings.Replace(url, "127.0.0.1", "localhost", 1), "NATS_CA", ca, "NATS_CERT", cert, "NATS_KEY", key),
		"its certificate is for another host; check NATS_URL")

	plain := natstest.Run(t)
	require.Contains(t, fails(t, "NATS_URL", plain.URL, "NATS_CA", ca), "it does not speak TLS; use nats:// in NATS_URL, and neither NATS_CA nor NATS_CERT")
}

// certificates writes a certificate for 127.0.0.1 that is its own authority.
func certificates(t *testing.T) (ca, cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	cert = file(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	key = file(t, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
	return cert, cert, key
}

// contextFile writes a context of the nats command.
func contextFile(t *testing.T, settings map[string]string) string {
	t.Helper()
	text, err := json.Marshal(settings)
	require.NoError(t, err)
	name := filepath.Join(t.TempDir(), "test.json")
	require.NoError(t, os.WriteFile(name, text, 0o600))
	return name
}

func TestConnectWithAContext(t *testing.T) {
	t.Parallel()
	s := natstest.RunWith(t, natstest.Options{Config: `authorization { user: me, password: ` + planted + ` }`})
	complete := contextFile(t, map[string]string{"url": s.URL, "user": "me", "password": planted})
	connects(t, "NATS_CONTEXT", complete)

	elsewhere := contextFile(t, map[string]string{"url": "nats://127.0.0.1:1", "user": "me", "password": planted})
	connects(t, "NATS_CONTEXT", elsewhere, "NATS_URL", s.URL) // a variable goes on top

	wrong := contextFile(t, map[string]string{"url": s.URL, "user": "me", "password": "x" + planted})
	require.Contains(t, fails(t, "NATS_CONTEXT", wrong), "refused the credentials; check NATS_CONTEXT")
	require.Contains(t, fails(t, "NATS_CONTEXT", elsewhere), "cannot reach NATS at the servers of the context "+elsewhere+": connection refused")
}

func TestAContextThatCannotBeLoadedIsAProblem(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "c.json")
	require.NoError(t, os.WriteFile(name, []byte("{"+planted), 0o600))
	s := ForSubmit(environment(map[string]string{"NATS_CONTEXT": name}))
	require.Len(t, s.Report.Problems, 1)
	require.Contains(t, s.Report.Problems[0].String(), "NATS_CONTEXT: cannot be used: ")
	require.NotContains(t, s.Report.Problems[0].String(), planted)
}

func TestAServerThatIsNotThereIsSaidAtOnce(t *testing.T) {
	t.Parallel()
	url := "nats://" + closedPort(t)
	require.Equal(t, "cannot reach NATS at "+url+": connection refused; set NATS_URL or start `worker`", fails(t, "NATS_URL", url))
	require.Equal(t, "cannot reach NATS at nats://[set]@"+closed(url)+": connection refused; set NATS_URL or start `worker`",
		fails(t, "NATS_URL", at(url, "me:"+planted)))
	require.Contains(t, fails(t, "NATS_URL", "nats://nowhere.invalid:4222"), "; check NATS_URL")

	w := ForWorker(environment(with(working(), "NATS_URL", url)))
	_, err := w.Config.Connect()
	require.EqualError(t, err, "cannot reach NATS at "+url+": connection refused; check NATS_URL, or unset it to run with the embedded server")
}

func TestAServerThatDoesNotAnswerIsSaid(t *testing.T) {
	t.Parallel()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	s := submit(t, "NATS_URL", "nats://"+listener.Addr().String())
	_, err = s.NATS.Connect(nats.Timeout(50 * time.Millisecond))
	require.EqualError(t, err, "cannot reach NATS at nats://"+listener.Addr().String()+": no answer in time; set NATS_URL or start `worker`")
}

func TestTheFirstServerThatAnswersIsTaken(t *testing.T) {
	t.Parallel()
	s := natstest.Run(t)
	connects(t, "NATS_URL", closedPort(t)+", "+strings.TrimPrefix(s.URL, "nats://"))
}

func TestSubmitLooksWhereTheEmbeddedServerIs(t *testing.T) {
	t.Parallel()
	s := submit(t)
	require.False(t, s.NATS.Configured())
	require.Equal(t, nats.DefaultURL, s.NATS.Servers())
	require.Equal(t, "llm", s.Subjects.Prefix())

	s = submit(t, "WORKER_SUBJECT_PREFIX", "acme", "WORKER_CONCURRENCY", "many", "BACKENDS", "a b") // not its business
	require.Equal(t, "acme", s.Subjects.Prefix())

	s = ForSubmit(environment(map[string]string{"WORKER_SUBJECT_PREFIX": "a.b", "NATS_CREDS": "/none"}))
	require.Equal(t, []string{
		`NATS_CREDS: "/none" cannot be read: file does not exist; name a readable file`,
		`WORKER_SUBJECT_PREFIX: "a.b" cannot start a subject; use at most 64 of A-Z a-z 0-9 _ -`,
	}, findings(s.Report.Problems))
}

// closedPort is an address at which nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	return listener.Addr().String()
}

func closed(url string) string { return strings.TrimPrefix(url, "nats://") }
