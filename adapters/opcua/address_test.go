package opcua

import (
	"strings"
	"testing"
)

func TestAddresses(t *testing.T) {
	const uri = "http://plant"
	for _, tt := range []struct{ node, want string }{
		{"i=2258", "nsu=http://plant;i=2258"},
		{"ns=0;i=2258", "i=2258"},
		{"ns=3;i=7", "ns=3;i=7"},
		{"nsu=http://other;s=a", "nsu=http://other;s=a"},
		{`s="DB"."Var"`, `nsu=http://plant;s="DB"."Var"`},
		{`s="DB"."Arr"[3]`, `nsu=http://plant;s="DB"."Arr"[3]`},
		{"i=7[1,2]", "nsu=http://plant;i=7[1,2]"},
		{"s=a;b=c", "nsu=http://plant;s=a;b=c"},
		{"g=09087e75-8e5e-499b-954f-f2a9603db28a", "nsu=http://plant;g=09087e75-8e5e-499b-954f-f2a9603db28a"},
		{"b=M/RbKBsRVkePCePcx24oRA==", "nsu=http://plant;b=M/RbKBsRVkePCePcx24oRA=="},
	} {
		a, err := ParseNode(tt.node, uri)
		if err != nil || a.String() != tt.want {
			t.Errorf("%s is %s, %v, want %s", tt.node, a, err, tt.want)
		}
	}
	for _, tt := range []struct{ path, want string }{
		{"/Objects/Machine/Temp", "/Objects/Machine/Temp"},
		{"/Objects/3:Machine/Zones[2]", "/Objects/3:Machine/Zones[2]"},
		{"/Objects/a&/b/x&:y", "/Objects/a/b/x:y"},
		{"/Objects/DB1:Var", "/Objects/DB1:Var"},
	} {
		a, err := ParseBrowse(tt.path, uri)
		if err != nil || a.String() != tt.want {
			t.Errorf("%s is %s, %v, want %s", tt.path, a, err, tt.want)
		}
	}
}

func TestAddressesThatMeanNothing(t *testing.T) {
	for node, want := range map[string]string{
		"":                           "none of i=<number>",
		"Temp":                       "'s=Temp'",
		"i=seven":                    "not a number",
		"i=4294967296":               "not a number",
		"g=12":                       "no GUID",
		"b=?":                        "no base64",
		"ns=70000;i=1":               "no namespace index",
		"nsu=;i=1":                   "followed by a namespace URI",
		"x=1":                        "none of i=<number>",
		strings.Repeat("s", 5) + "=": "none of i=<number>",
	} {
		if _, err := ParseNode(node, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", node, err, want)
		}
	}
	for path, want := range map[string]string{"Objects/a": "does not begin with /", "/Objects//a": "empty name", "/Objects/3:": "empty name"} {
		if _, err := ParseBrowse(path, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", path, err, want)
		}
	}
}

func FuzzParseNode(f *testing.F) {
	f.Add(`ns=3;s="DB"."Var"[3]`)
	f.Add("nsu=http://x;b=M/RbKBsRVkePCePcx24oRA==[0:4,1]")
	f.Fuzz(func(t *testing.T, text string) {
		if a, err := ParseNode(text, "http://plant"); err == nil {
			again, err := ParseNode(a.String(), "http://plant")
			if err != nil || again.String() != a.String() {
				t.Errorf("%q is %s, which is %s, %v", text, a, again, err)
			}
			_ = a.nodeID(3, true).String()
		}
		if a, err := ParseBrowse(text, ""); err == nil && len(a.Path) == 0 {
			t.Errorf("%q is an empty path", text)
		}
	})
}
