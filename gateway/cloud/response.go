package cloud

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"sluice/gateway"
)

// ParseResponse reads what the platform answers on attributes_response and
// event_response: a JSON object with an integer error_code, and an error_msg
// that is a string where there is one. All other keys are ignored.
func ParseResponse(payload []byte) (code int, msg string, err error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(payload, &object); err != nil {
		return 0, "", fmt.Errorf("answer %.80q is no JSON object", payload)
	}
	number, ok := object["error_code"]
	if code, err = strconv.Atoi(string(number)); !ok || err != nil {
		return 0, "", fmt.Errorf("answer %.80q has no integer error_code", payload)
	}
	text, ok := object["error_msg"]
	if !ok {
		return code, "", nil
	}
	if len(text) == 0 || text[0] != '"' || json.Unmarshal(text, &msg) != nil {
		return 0, "", fmt.Errorf("answer %.80q has an error_msg that is no string", payload)
	}
	return code, msg, nil
}

// answer is what came on a response topic.
type answer struct {
	code int
	msg  string
	err  error // it cannot be read
}

func parseAnswer(payload []byte) answer {
	code, msg, err := ParseResponse(payload)
	return answer{code, msg, err}
}

// verdict is nil for a message that is stored. Only the code counts; of the
// text, which is for people, only the word that means too fast.
func (a answer) verdict() error {
	switch {
	case a.err != nil:
		return a.err
	case a.code == 0:
		return nil
	case strings.Contains(strings.ToLower(a.msg), "frequen"):
		return gateway.ErrTooFast
	}
	return &gateway.Refusal{Code: a.code, Reason: a.msg}
}
