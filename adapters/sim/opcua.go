//go:build !lean

package sim

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	library "github.com/awcullen/opcua/server"
	"github.com/awcullen/opcua/ua"

	"sluice/gateway"
)

// server is one simulated OPC UA server: its address space, the library's
// server that speaks for it, and the front before that.
type server struct {
	name    string
	space   *space
	options []library.Option
	cert    string // files
	key     string
	port    int // of the front, the same after each up
	counted traffic

	mu      sync.Mutex
	front   *front // nil while the bus is down
	library *library.Server
	backend string        // its address
	quiet   chan struct{} // closed when a silent server speaks again; nil while it does
}

// ServesOPCUA tells whether this build simulates OPC UA servers.
const ServesOPCUA = true

// startServer starts the server of an OPC UA bus and makes the settings lead to
// it.
func (s *Sim) startServer(settings *gateway.Bus, devices []*gateway.Device, o Options) error {
	v := &server{name: settings.Name, space: newSpace(s.elapsed)}
	if err := s.secureServer(v, settings); err != nil {
		return err
	}
	if err := v.serve(func(standard *library.NamespaceManager) error {
		return v.space.fill(settings, devices, standard, o)
	}); err != nil {
		return err
	}
	s.buses[v.name] = v
	if err := v.up(); err != nil {
		return err
	}
	settings.Endpoint = "opc.tcp://" + net.JoinHostPort(loopback, strconv.Itoa(v.port))
	return nil
}

// serve starts a server of the library, which could not tell which port it got:
// a free one is looked for first, and another where somebody was faster.
func (v *server) serve(prepare func(*library.NamespaceManager) error) error {
	for attempt := 1; ; attempt++ {
		free, err := net.Listen("tcp", loopback+":0")
		if err != nil {
			return err
		}
		address := free.Addr().String()
		free.Close()
		l, err := v.create("opc.tcp://" + address)
		if err != nil {
			return err
		}
		if err := prepare(l.NamespaceManager()); err != nil {
			return err
		}
		if err := v.space.build(l); err != nil {
			return err
		}
		if err = listen(l, address); err == nil {
			v.library, v.backend = l, address
			return nil
		}
		if attempt == 10 {
			return err
		}
		prepare = func(*library.NamespaceManager) error { return nil }
	}
}

func (v *server) create(endpoint string) (*library.Server, error) {
	return library.New(ua.ApplicationDescription{
		ApplicationURI:  applicationURI(v.name),
		ProductURI:      "urn:sluice:sim",
		ApplicationName: ua.NewLocalizedText("simulated "+v.name, "en"),
		ApplicationType: ua.ApplicationTypeServer,
		DiscoveryURLs:   []string{endpoint},
	}, v.cert, v.key, endpoint, v.options...)
}

func applicationURI(bus string) string { return "urn:sluice:sim:" + bus }

// listen returns when the server accepts connections, or can't.
func listen(l *library.Server, address string) error {
	ended := make(chan error, 1)
	l.Endpoints()                               // it makes them at first sight: of two connections at a time, in a race
	go func() { ended <- l.ListenAndServe() }() // until leave
	for {
		if conn, err := net.Dial("tcp", address); err == nil {
			return conn.Close()
		}
		select {
		case err := <-ended:
			return fmt.Errorf("listen on %s: %w", address, err)
		case <-time.After(time.Millisecond):
		}
	}
}

// leave ends a server of the library. It takes three seconds over its farewell
// to clients that the front has cut off already, so nobody waits for it.
func leave(l *library.Server) { go l.Close() }

func (v *server) stop() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	leave(v.library)
	return nil
}

func (v *server) restart() error {
	v.down()
	v.mu.Lock()
	leave(v.library)
	err := v.serve(func(*library.NamespaceManager) error { return nil })
	v.mu.Unlock()
	if err != nil {
		return err
	}
	return v.up()
}

func (v *server) traffic() *traffic { return &v.counted }

func (v *server) silence(unit int, silent bool) error {
	if unit != 0 {
		return fmt.Errorf("bus %s is one OPC UA server: unit 0, not %d", v.name, unit)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case silent && v.quiet == nil:
		v.quiet = make(chan struct{})
	case !silent && v.quiet != nil:
		close(v.quiet)
		v.quiet = nil
	}
	return nil
}

func (v *server) find(device, point string) held {
	if p := v.space.find(device, point); p != nil {
		return shared{v.space, p}
	}
	return nil
}

// Raise lets an OPC UA server tell its subscribers of an event, from 1
// (information) to 1000 (catastrophe).
func (s *Sim) Raise(bus string, severity int, source, message string) error {
	v, ok := s.buses[bus].(*server)
	if !ok {
		return fmt.Errorf("no simulated OPC UA bus %s", bus)
	}
	v.mu.Lock()
	l := v.library
	v.mu.Unlock()
	nodes := l.NamespaceManager()
	from, ok := nodes.FindObject(ua.ObjectIDServer)
	if !ok {
		return fmt.Errorf("raise an event on bus %s: the server has no Server object", bus)
	}
	now := time.Now()
	return nodes.OnEvent(from, &ua.BaseEvent{
		EventID: ua.ByteString(strconv.FormatInt(now.UnixNano(), 36)), EventType: ua.ObjectTypeIDBaseEventType,
		SourceNode: ua.ObjectIDServer, SourceName: source, Time: now, ReceiveTime: now,
		Message: ua.NewLocalizedText(message, "en"), Severity: uint16(severity),
	})
}

// Calls are the arguments that the methods of a command got, call by call.
func (s *Sim) Calls(device, command string) [][]gateway.Value {
	for _, b := range s.buses {
		if v, ok := b.(*server); ok {
			if calls := v.space.calls(device, command); calls != nil {
				return calls
			}
		}
	}
	return nil
}

// secureServer chooses what the server asks of clients by what the settings
// say, and replaces what they name files for.
func (s *Sim) secureServer(v *server, settings *gateway.Bus) (err error) {
	if v.cert, v.key, err = s.certify(v.name); err != nil {
		return err
	}
	login := settings.Login
	anonymous := login.User == "" && login.Cert == ""
	if anonymous && (settings.Security == "auto" || settings.Security == "") {
		settings.Security, settings.Trust = "None", ""
	}
	if strings.HasPrefix(settings.Trust, "file:") {
		settings.Trust = "file:" + v.cert
	}
	limits := ua.NewServerCapabilities()
	limits.MinSupportedSampleRate = 10 // ms
	v.options = []library.Option{
		library.WithServerCapabilities(limits),
		library.WithBuildInfo(ua.BuildInfo{ProductName: "sluice sim", ManufacturerName: "sluice"}),
		library.WithRolePermissions(everything),
		library.WithServerDiagnostics(false),
		library.WithInsecureSkipVerify(),
		library.WithSecurityPolicyNone(settings.Security == "None" || settings.Security == "auto"),
		library.WithAnonymousIdentity(anonymous),
	}
	switch {
	case login.Cert != "":
		cert, key, err := s.certify(v.name + "-user")
		if err != nil {
			return err
		}
		settings.Login.Cert, settings.Login.Key = cert, gateway.Secret("file:"+key)
		return v.admitCertificate(cert)
	case login.User != "":
		v.options = append(v.options, library.WithAuthenticateUserNameIdentityFunc(func(who ua.UserNameIdentity, _, _ string) error {
			if who.UserName != login.User || who.Password != string(login.Password) {
				return ua.BadUserAccessDenied
			}
			return nil
		}))
	}
	return nil
}

// everything is what every user may do: what is not writable is so by its node.
var everything = []ua.RolePermissionType{
	{RoleID: ua.ObjectIDWellKnownRoleAnonymous, Permissions: allowed},
	{RoleID: ua.ObjectIDWellKnownRoleAuthenticatedUser, Permissions: allowed},
}

const allowed = ua.PermissionTypeBrowse | ua.PermissionTypeRead | ua.PermissionTypeWrite | ua.PermissionTypeReceiveEvents | ua.PermissionTypeCall
