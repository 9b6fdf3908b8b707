package site_test

import (
	"fmt"
	"reflect"
	"regexp"
	"strings"
)

// jsonValue makes a YAML value one of JSON: keys are strings, numbers float64.
func jsonValue(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := map[string]any{}
		for key, value := range v {
			m[key] = jsonValue(value)
		}
		return m
	case map[any]any:
		m := map[string]any{}
		for key, value := range v {
			m[fmt.Sprint(key)] = jsonValue(value)
		}
		return m
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = jsonValue(v[i])
		}
		return list
	case int:
		return float64(v)
	case int64:
		return float64(v)
	case uint64:
		return float64(v)
	}
	return v
}

// validate holds a value against as much of JSON Schema as our schema uses, and
// says what is wrong or "".
func validate(root, s map[string]any, v any) string {
	if ref, ok := s["$ref"].(string); ok {
		return validate(root, root["$defs"].(map[string]any)[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any), v)
	}
	if t, ok := s["type"].(string); ok && !isOf(t, v) {
		return fmt.Sprintf("%v is no %s", v, t)
	}
	if c, ok := s["const"]; ok && !reflect.DeepEqual(c, v) {
		return fmt.Sprintf("%v is not %v", v, c)
	}
	if words, ok := s["enum"].([]any); ok {
		found := false
		for _, w := range words {
			found = found || w == v
		}
		if !found {
			return fmt.Sprintf("%v is none of %v", v, words)
		}
	}
	if text, ok := v.(string); ok && s["pattern"] != nil && !regexp.MustCompile(s["pattern"].(string)).MatchString(text) {
		return fmt.Sprintf("%q is not %s", text, s["pattern"])
	}
	for _, part := range schemas(s["allOf"]) {
		if wrong := validate(root, part, v); wrong != "" {
			return wrong
		}
	}
	if parts := schemas(s["anyOf"]); len(parts) > 0 {
		var all []string
		for _, part := range parts {
			all = append(all, validate(root, part, v))
			if all[len(all)-1] == "" {
				all = nil
				break
			}
		}
		if all != nil {
			return strings.Join(all, "; ")
		}
	}
	return validateParts(root, s, v)
}

func validateParts(root, s map[string]any, v any) string {
	switch v := v.(type) {
	case map[string]any:
		required, _ := s["required"].([]any)
		for _, key := range required {
			if _, ok := v[key.(string)]; !ok {
				return fmt.Sprintf("%s is missing", key)
			}
		}
		properties, _ := s["properties"].(map[string]any)
		for key, value := range v {
			part, known := properties[key].(map[string]any)
			if !known {
				if s["additionalProperties"] == false {
					return "unknown key " + key
				}
				part, known = s["additionalProperties"].(map[string]any)
			}
			if known {
				if wrong := validate(root, part, value); wrong != "" {
					return key + ": " + wrong
				}
			}
		}
	case []any:
		items, ok := s["items"].(map[string]any)
		for i := range v {
			if ok {
				if wrong := validate(root, items, v[i]); wrong != "" {
					return wrong
				}
			}
		}
		if n, ok := s["minItems"].(float64); ok && len(v) < int(n) {
			return "too few items"
		}
	}
	return ""
}

func schemas(v any) []map[string]any {
	var all []map[string]any
	list, _ := v.([]any)
	for _, s := range list {
		all = append(all, s.(map[string]any))
	}
	return all
}

func isOf(t string, v any) bool {
	switch t {
	case "object":
		_, ok := v.(map[string]any)
		return ok
	case "array":
		_, ok := v.([]any)
		return ok
	case "string":
		_, ok := v.(string)
		return ok
	case "boolean":
		_, ok := v.(bool)
		return ok
	case "integer":
		f, ok := v.(float64)
		return ok && f == float64(int64(f))
	case "number":
		_, ok := v.(float64)
		return ok
	}
	return false
}
