package cloud

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"sluice/gateway"
)

func TestResponsesAreRead(t *testing.T) {
	for payload, want := range map[string]answer{
		`{"error_code":0,"error_msg":"OK","ts":1750234507181}`: {},
		`{"error_code":0,"error_msg":""}`:                      {},
		`{"error_code":0}`:                                     {},
		` {"ts":"x","error_code" : -1 ,"error_msg":"too \u0066requent","attributes":{}} `: {code: -1, msg: "too frequent"},
	} {
		code, msg, err := ParseResponse([]byte(payload))
		if err != nil || code != want.code || (want.msg != "" && msg != want.msg) {
			t.Errorf("%s is %d, %q, %v", payload, code, msg, err)
		}
	}
}

func TestResponsesOfAnotherShapeAreRefused(t *testing.T) {
	for payload, want := range map[string]string{
		``:                                    "no JSON object",
		`OK`:                                  "no JSON object",
		`[0]`:                                 "no JSON object",
		`{"error_code":0}{}`:                  "no JSON object",
		`{"error_code":0,}`:                   "no JSON object",
		`null`:                                "no integer error_code",
		`{}`:                                  "no integer error_code",
		`{"Error_Code":0}`:                    "no integer error_code",
		`{"error_code":"0"}`:                  "no integer error_code",
		`{"error_code":0.5}`:                  "no integer error_code",
		`{"error_code":null}`:                 "no integer error_code",
		`{"error_code":99999999999999999999}`: "no integer error_code",
		`{"error_code":0,"error_msg":7}`:      "error_msg that is no string",
		`{"error_code":0,"error_msg":null}`:   "error_msg that is no string",
		strings.Repeat("[", 1<<17):            "no JSON object",
	} {
		_, _, err := ParseResponse([]byte(payload))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: error is %v, want %q", payload, err, want)
		}
	}
}

func TestOnlyTheCodeCounts(t *testing.T) {
	if err := (answer{code: 0, msg: "frequency too fast"}).verdict(); err != nil {
		t.Errorf("code 0 is %v, want stored", err)
	}
	if err := (answer{code: -1, msg: "Device message Frequency too fast, please wait for a moment"}).verdict(); err != gateway.ErrTooFast {
		t.Errorf("too fast is %v", err)
	}
	var refusal *gateway.Refusal
	if err := (answer{code: 400, msg: "no such attribute"}).verdict(); !errors.As(err, &refusal) || *refusal != (gateway.Refusal{Code: 400, Reason: "no such attribute"}) {
		t.Errorf("a refusal is %v", err)
	}
}

func FuzzParseResponse(f *testing.F) {
	for _, seed := range []string{`{"error_code":0,"error_msg":"OK","ts":1}`, `{"error_code":-1,"error_msg":"\ud800"}`, `{`, `null`, "\xff"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		if code, _, err := ParseResponse(payload); err == nil && !json.Valid(payload) {
			t.Errorf("%q is taken for %d, but is no JSON", payload, code)
		}
	})
}
