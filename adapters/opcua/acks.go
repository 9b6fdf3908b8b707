package opcua

import (
	"sync"

	"github.com/gopcua/opcua/ua"
)

// acknowledgements are the messages that the server may forget; they go out
// with the next Publish request.
type acknowledgements struct {
	subscription uint32
	mutex        sync.Mutex
	due          []*ua.SubscriptionAcknowledgement
}

func (a *acknowledgements) add(number uint32) {
	a.giveBack([]*ua.SubscriptionAcknowledgement{{SubscriptionID: a.subscription, SequenceNumber: number}})
}

func (a *acknowledgements) giveBack(due []*ua.SubscriptionAcknowledgement) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.due = append(a.due, due...)
}

func (a *acknowledgements) take() []*ua.SubscriptionAcknowledgement {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	taken := a.due
	a.due = nil
	if taken == nil {
		taken = []*ua.SubscriptionAcknowledgement{}
	}
	return taken
}
