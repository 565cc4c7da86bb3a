package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// manifests returns all of ours, as one file.
func manifests(t *testing.T) string {
	t.Helper()
	names, err := filepath.Glob("../../deploy/kubernetes/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(content))
	}
	return strings.Join(all, "---\n")
}

// Each mistake is made in a copy of our manifests, and has to be found.
func TestMistakesAreFound(t *testing.T) {
	ours := manifests(t)
	for _, tt := range []struct{ name, old, new, want string }{
		{"none", "", "", ""},
		{"unknown field", "  replicas: 2", "  replica: 2", `unknown field "spec.replica"`},
		{"field of another case", "  replicas: 2", "  Replicas: 2", `unknown field "spec.Replicas"`},
		{"unknown field far below", "readOnlyRootFilesystem", "readOnlyRootFileSystem", "readOnlyRootFileSystem"},
		{"field given twice", "  replicas: 2", "  replicas: 2\n  replicas: 3", `key "replicas" already set`},
		{"wrong type", "  replicas: 2", "  replicas: two", "replicas"},
		{"unknown kind", "kind: Deployment", "kind: Deploymint", "Deploymint"},
		{"unknown version", "apiVersion: policy/v1", "apiVersion: policy/v1beta1", "policy/v1beta1"},
		{"unknown field of a custom resource", "  endpoints:", "  endpoint:", `unknown field "spec.endpoint"`},
		{"selector of the budget", "minAvailable: 1\n  selector:\n    matchLabels:\n      app.kubernetes.io/name: coredns-shaker",
			"minAvailable: 1\n  selector:\n    matchLabels:\n      app.kubernetes.io/name: coredns", "PodDisruptionBudget shaker/coredns: the selector"},
		{"selector of the deployment", "    matchLabels: *labels\n  template", "    matchLabels: {a: b}\n  template", "its selector differs"},
		{"selector of the service", "  selector: *labels", "  selector: {a: b}", `the selector "a=b" finds no pod`},
		{"port of the service", "targetPort: metrics", "targetPort: metric", `no port with the name "metric"`},
		{"protocol of the service", "targetPort: dns-tcp, protocol: TCP", "targetPort: dns-tcp, protocol: UDP", "protocol UDP"},
		{"port of a probe", "port: ready}", "port: redy}", `no port with the name "redy"`},
		{"port of the policy", "- {port: metrics, protocol: TCP}\n  egress", "- {port: metrik, protocol: TCP}\n  egress", `"metrik"`},
		{"port of the monitor", "- port: metrics", "- port: metrik", `"metrik"`},
		{"account", "serviceAccountName: coredns", "serviceAccountName: dns", "refers to ServiceAccount shaker/dns"},
		{"config map", "configMap:\n            name: coredns", "configMap:\n            name: dns", "refers to ConfigMap shaker/dns"},
		{"volume", "- name: config\n              mount", "- name: conf\n              mount", `mounts "conf"`},
		{"part of a config map", "mountPath: /etc/coredns", "mountPath: /etc/coredns/Corefile\n              subPath: Corefile", "because of subPath"},
		{"namespace", "kind: ConfigMap\nmetadata:\n  name: coredns\n  namespace: shaker", "kind: ConfigMap\nmetadata:\n  name: coredns\n  namespace: shake",
			"refers to Namespace /shake"},
		{"no namespace", "kind: ConfigMap\nmetadata:\n  name: coredns\n  namespace: shaker", "kind: ConfigMap\nmetadata:\n  name: coredns", "has no namespace"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := ours
			if tt.old != "" {
				if text = strings.Replace(ours, tt.old, tt.new, 1); text == ours {
					t.Fatalf("the manifests have no %q", tt.old)
				}
			}
			if got := problems(text); tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("found %q, want %q", got, tt.want)
			}
		})
	}
}

func TestObjectThatIsThereTwice(t *testing.T) {
	ours := manifests(t)
	if got := problems(ours + "---\n" + ours); !strings.Contains(got, "Deployment shaker/coredns: is there twice") {
		t.Errorf("found %q", got)
	}
}

func problems(manifests string) string {
	objects, err := decode([]byte(manifests))
	if err != nil {
		return err.Error()
	}
	return strings.Join(check(objects), "\n")
}
