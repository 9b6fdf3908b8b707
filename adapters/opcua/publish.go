package opcua

import (
	"math"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

// decodePublished decodes what most messages are, values that changed, as the
// library does, which takes twice as long: it names each value while it does.
// The content is known to be bounded.
func decodePublished(content []byte) (*ua.PublishResponse, int, error) {
	b := ua.NewBuffer(content)
	r := &ua.PublishResponse{ResponseHeader: new(ua.ResponseHeader), NotificationMessage: new(ua.NotificationMessage)}
	b.ReadStruct(r.ResponseHeader)
	r.SubscriptionID = b.ReadUint32()
	b.ReadStruct(&r.AvailableSequenceNumbers)
	r.MoreNotifications = b.ReadBool()
	m := r.NotificationMessage
	m.SequenceNumber, m.PublishTime = b.ReadUint32(), b.ReadTime()
	if n := b.ReadUint32(); n != math.MaxUint32 && b.Error() == nil {
		m.NotificationData = make([]*ua.ExtensionObject, n)
		for i := range m.NotificationData {
			m.NotificationData[i] = decodeNotification(b)
		}
	}
	b.ReadStruct(&r.Results)
	b.ReadStruct(&r.DiagnosticInfos)
	return r, b.Pos(), b.Error()
}

func decodeNotification(b *ua.Buffer) *ua.ExtensionObject {
	whole := b.Bytes()
	o := &ua.ExtensionObject{TypeID: new(ua.ExpandedNodeID)}
	b.ReadStruct(o.TypeID)
	o.EncodingMask = b.ReadByte()
	node := o.TypeID.NodeID
	if b.Error() != nil || o.EncodingMask != ua.ExtensionObjectBinary || node.Namespace() != 0 || node.IntID() != id.DataChangeNotification_Encoding_DefaultBinary {
		again := ua.NewBuffer(whole)
		again.ReadStruct(o)
		b.ReadN(again.Pos() - (len(whole) - b.Len()))
		return o
	}
	length := b.ReadUint32()
	if length == 0 || length == math.MaxUint32 {
		return o
	}
	inner := ua.NewBuffer(b.ReadN(int(length)))
	changes := new(ua.DataChangeNotification)
	o.Value = changes
	if n := inner.ReadUint32(); n != math.MaxUint32 && inner.Error() == nil {
		items, values := make([]ua.MonitoredItemNotification, n), make([]ua.DataValue, n)
		changes.MonitoredItems = make([]*ua.MonitoredItemNotification, n)
		for i := range items {
			items[i].ClientHandle, items[i].Value = inner.ReadUint32(), &values[i]
			inner.ReadStruct(&values[i])
			changes.MonitoredItems[i] = &items[i]
		}
	}
	inner.ReadStruct(&changes.DiagnosticInfos)
	return o
}
