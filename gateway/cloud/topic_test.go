package cloud

import "testing"

func TestTopicNames(t *testing.T) {
	for want, got := range map[string]string{
		"attributes/plant1":              Attributes.Topic("plant1"),
		"attributes_response/plant1":     AttributesResponse.Topic("plant1"),
		"attributes_get/plant1":          AttributesGet.Topic("plant1"),
		"attributes_get_response/plant1": AttributesGetResponse.Topic("plant1"),
		"attributes_push/plant1":         AttributesPush.Topic("plant1"),
		"event_report/plant1":            EventReport.Topic("plant1"),
		"event_response/plant1":          EventResponse.Topic("plant1"),
		"command_send/plant1":            CommandSend.Topic("plant1"),
		"command_reply/plant1":           CommandReply.Topic("plant1"),
		"data/plant1/history":            Data.Stream("plant1", "history"),
		"data_set/plant1/recipe":         DataSet.Stream("plant1", "recipe"),
	} {
		if got != want {
			t.Errorf("topic is %q, want %q", got, want)
		}
		kind, user, stream, ok := SplitTopic(want)
		back := kind.Topic(user)
		if stream != "" {
			back = kind.Stream(user, stream)
		}
		if !ok || user != "plant1" || back != want || kind.Up() == kind.Down() {
			t.Errorf("SplitTopic(%q) = %q, %q, %q, %v", want, kind, user, stream, ok)
		}
	}
}

func TestSplitTopicRefusesForeignTopics(t *testing.T) {
	for _, topic := range []string{
		"", "/", "attributes", "attributes/", "attributes/u/x", "data/u", "data/u/", "data//x", "data/u/x/y",
		"#", "attributes_response/u/", "$SYS/uptime", "Attributes/u", "sub_attributes/u",
	} {
		if kind, user, stream, ok := SplitTopic(topic); ok {
			t.Errorf("SplitTopic(%q) = %q, %q, %q, want a refusal", topic, kind, user, stream)
		}
	}
}
