package opcua_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/awcullen/opcua/server"
	"github.com/awcullen/opcua/ua"
)

const plantURI = "http://sluice.test/plant"

// plantServer is a server that we did not write, in process.
type plantServer struct {
	*server.Server
	space uint16 // the plant's namespace
	port  int
	mutex sync.Mutex
	fails map[string]ua.StatusCode
	slow  map[string]time.Duration
}

// serverOptions are what a test wants otherwise than usual.
type serverOptions struct {
	limit   uint32 // of operations in one request; 0: 1,000
	port    int    // 0: any
	before  []string
	cert    *serverCert // nil: the usual one
	stays   bool        // until all tests are over
	options []server.Option
}

// startServer starts a server without nodes of its own, which ends with the
// test.
func startServer(t testing.TB, o serverOptions) *plantServer {
	t.Helper()
	if o.port == 0 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		o.port = l.Addr().(*net.TCPAddr).Port
		l.Close()
	}
	if o.cert == nil {
		o.cert = usualCert(t)
	}
	capabilities := ua.NewServerCapabilities()
	capabilities.MinSupportedSampleRate = 10
	if o.limit > 0 {
		limits := reflect.ValueOf(capabilities.OperationLimits).Elem()
		for i := range limits.NumField() {
			limits.Field(i).SetUint(uint64(o.limit))
		}
	}
	certFile, keyFile := o.cert.files(t)
	endpoint := fmt.Sprintf("opc.tcp://127.0.0.1:%d", o.port)
	options := append([]server.Option{
		server.WithAnonymousIdentity(true), server.WithSecurityPolicyNone(true), server.WithInsecureSkipVerify(),
		server.WithServerCapabilities(capabilities), server.WithMaxWorkerThreads(64), server.WithServerDiagnostics(false),
		server.WithGetRolesFunc(func(any, string, string) ([]ua.NodeID, error) {
			return []ua.NodeID{ua.ObjectIDWellKnownRoleOperator, ua.ObjectIDWellKnownRoleAuthenticatedUser}, nil
		}),
	}, o.options...)
	srv, err := server.New(ua.ApplicationDescription{
		ApplicationURI: o.cert.uri, ApplicationName: ua.NewLocalizedText("plant", "en"), ApplicationType: ua.ApplicationTypeServer, DiscoveryURLs: []string{endpoint},
	}, certFile, keyFile, endpoint, options...)
	if err != nil {
		t.Fatal(err)
	}
	s := &plantServer{Server: srv, port: o.port, fails: make(map[string]ua.StatusCode), slow: make(map[string]time.Duration)}
	for _, uri := range o.before {
		srv.NamespaceManager().Add(uri)
	}
	s.space = srv.NamespaceManager().Add(plantURI)
	srv.Endpoints() // it makes them at first sight: of two connections at a time, in a race
	go srv.ListenAndServe()
	if !o.stays {
		t.Cleanup(s.stop)
	}
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		c, err := net.Dial("tcp", s.address())
		if err == nil {
			c.Close()
			return s
		}
		if time.Since(begin) > 10*time.Second {
			t.Fatal("the server does not start")
		}
	}
}

func (s *plantServer) address() string { return "127.0.0.1:" + strconv.Itoa(s.port) }

// stop ends the server, which takes three seconds to say goodbye, behind our
// back.
func (s *plantServer) stop() { go s.Close() }

// folder adds an object below another one.
func (s *plantServer) folder(t testing.TB, parent ua.NodeID, name string) ua.NodeID {
	t.Helper()
	id := ua.NewNodeIDString(s.space, "folder."+name)
	node := server.NewObjectNode(s.Server, id, ua.NewQualifiedName(s.space, name), ua.NewLocalizedText(name, ""), ua.NewLocalizedText("", ""), nil,
		[]ua.Reference{ua.NewReference(ua.ReferenceTypeIDOrganizes, true, ua.NewExpandedNodeID(parent))}, 0)
	if err := s.NamespaceManager().AddNode(node); err != nil {
		t.Fatal(err)
	}
	return id
}

// variable adds a variable with a string identifier; its value is stamped when
// it is read, as live equipment does.
func (s *plantServer) variable(t testing.TB, parent ua.NodeID, id, name string, value any, dataType ua.NodeID) *server.VariableNode {
	t.Helper()
	rank := int32(ua.ValueRankScalar)
	if k := reflect.TypeOf(value).Kind(); k == reflect.Slice && reflect.TypeOf(value) != reflect.TypeFor[ua.ByteString]() {
		rank = ua.ValueRankOneDimension
	}
	node := server.NewVariableNode(s.Server, ua.NewNodeIDString(s.space, id), ua.NewQualifiedName(s.space, name), ua.NewLocalizedText(name, ""), ua.NewLocalizedText("", ""), nil,
		[]ua.Reference{ua.NewReference(ua.ReferenceTypeIDHasComponent, true, ua.NewExpandedNodeID(parent))},
		ua.NewDataValue(value, ua.Good, time.Now(), 0, time.Now(), 0), dataType, rank, nil, ua.AccessLevelsCurrentRead|ua.AccessLevelsCurrentWrite, 0, false, nil)
	if err := s.NamespaceManager().AddNode(node); err != nil {
		t.Fatal(err)
	}
	node.SetReadValueHandler(func(_ *server.Session, r ua.ReadValueID) ua.DataValue {
		s.mutex.Lock()
		status, slow := s.fails[id], s.slow[id]
		s.mutex.Unlock()
		time.Sleep(slow)
		v := node.Value()
		if status != ua.Good {
			v = ua.NewDataValue(nil, status, time.Time{}, 0, time.Time{}, 0)
		}
		v.Value = within(v.Value, r.IndexRange)
		v.SourceTimestamp, v.ServerTimestamp = time.Now(), time.Now()
		return v
	})
	return node
}

// within takes one element of an array.
func within(v any, elements string) any {
	if i, err := strconv.Atoi(elements); err == nil && v != nil {
		return reflect.ValueOf(v).Slice(i, i+1).Interface()
	}
	return v
}

// set makes a variable hold a value.
func (s *plantServer) set(t testing.TB, id string, value any) {
	t.Helper()
	s.node(t, id).SetValue(ua.NewDataValue(value, ua.Good, time.Now(), 0, time.Now(), 0))
}

func (s *plantServer) node(t testing.TB, id string) *server.VariableNode {
	t.Helper()
	n, ok := s.NamespaceManager().FindVariable(ua.NewNodeIDString(s.space, id))
	if !ok {
		t.Fatalf("the server has no variable %s", id)
	}
	return n
}

// fail makes reads and writes of a variable end with a status; Good ends that.
func (s *plantServer) fail(t testing.TB, id string, status ua.StatusCode) {
	t.Helper()
	s.mutex.Lock()
	s.fails[id] = status
	s.mutex.Unlock()
	var refuse func(*server.Session, ua.WriteValue) (ua.DataValue, ua.StatusCode)
	if status != ua.Good {
		refuse = func(*server.Session, ua.WriteValue) (ua.DataValue, ua.StatusCode) { return ua.DataValue{}, status }
	}
	s.node(t, id).SetWriteValueHandler(refuse)
}

// serverCert is the certificate of a server and its key.
type serverCert struct {
	der []byte
	key *rsa.PrivateKey
	uri string
}

var usualCert = func() func(testing.TB) *serverCert {
	var once sync.Once
	var cert *serverCert
	return func(t testing.TB) *serverCert {
		once.Do(func() { cert = makeCert(t, time.Now().AddDate(1, 0, 0)) })
		return cert
	}
}()

// usualKey is the key of most certificates: making one takes its time.
var usualKey = sync.OnceValue(newKey)

func newKey() *rsa.PrivateKey {
	for {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		// awcullen/opcua takes the length of D for that of the modulus.
		if len(key.D.Bytes()) == key.Size() {
			return key
		}
	}
}

// makeCert makes a certificate that ends then.
func makeCert(t testing.TB, ends time.Time) *serverCert {
	t.Helper()
	return certOf(t, usualKey(), ends)
}

func certOf(t testing.TB, key *rsa.PrivateKey, ends time.Time) *serverCert {
	t.Helper()
	c := &serverCert{key: key, uri: "urn:sluice.test:plant"}
	uri, _ := url.Parse(c.uri)
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	serial.SetBit(serial, 62, 1) // so that all certificates are equally long
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "plant"}, NotBefore: ends.AddDate(-2, 0, 0), NotAfter: ends, URIs: []*url.URL{uri}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageKeyEncipherment | x509.KeyUsageDataEncipherment | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	c.der = der
	return c
}

// files writes certificate and key for the server.
func (c *serverCert) files(t testing.TB) (cert, key string) {
	t.Helper()
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: c.der}, key: {Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(c.key)}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
