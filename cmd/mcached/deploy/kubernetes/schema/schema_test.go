// Package schema checks the Kubernetes manifests as a cluster would: built by
// kustomize itself, every object decoded strictly into the API's own types. It
// is a module of its own, because the daemon has no use for what that needs.
package schema

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// newObject gives what an object of a kind is decoded into. The ServiceMonitor
// is the Prometheus operator's; it has few enough fields to be spelt here.
var newObject = map[string]func() any{
	"v1/Namespace":                       func() any { return &corev1.Namespace{} },
	"v1/Service":                         func() any { return &corev1.Service{} },
	"apps/v1/DaemonSet":                  func() any { return &appsv1.DaemonSet{} },
	"apps/v1/StatefulSet":                func() any { return &appsv1.StatefulSet{} },
	"networking.k8s.io/v1/NetworkPolicy": func() any { return &networkingv1.NetworkPolicy{} },
	"policy/v1/PodDisruptionBudget":      func() any { return &policyv1.PodDisruptionBudget{} },
	"scheduling.k8s.io/v1/PriorityClass": func() any { return &schedulingv1.PriorityClass{} },
	"monitoring.coreos.com/v1/ServiceMonitor": func() any {
		return &struct {
			APIVersion, Kind string
			Metadata         map[string]any
			Spec             struct {
				Selector  map[string]any
				Endpoints []struct{ Port, Interval string }
			}
		}{}
	},
}

func TestManifests(t *testing.T) {
	for dir, workload := range map[string]string{"../node": "DaemonSet", "../standalone": "StatefulSet"} {
		built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
		if err != nil {
			t.Fatalf("%s: %v", dir, err)
		}
		kinds := map[string]bool{}
		for _, r := range built.Resources() {
			b, err := r.AsYAML()
			if err != nil {
				t.Fatal(err)
			}
			kind := r.GetApiVersion() + "/" + r.GetKind()
			kinds[r.GetKind()] = true
			make, ok := newObject[kind]
			if !ok {
				t.Errorf("%s: no type to check a %s by", dir, kind)
				continue
			}
			o := make()
			if err := yaml.UnmarshalStrict(b, o); err != nil {
				t.Errorf("%s: %s %s: %v", dir, kind, r.GetName(), err)
			}
			var pod *corev1.PodSpec
			var selector, labels map[string]string
			switch o := o.(type) {
			case *appsv1.DaemonSet:
				pod, selector, labels = &o.Spec.Template.Spec, o.Spec.Selector.MatchLabels, o.Spec.Template.Labels
			case *appsv1.StatefulSet:
				pod, selector, labels = &o.Spec.Template.Spec, o.Spec.Selector.MatchLabels, o.Spec.Template.Labels
			case *corev1.Service:
				if len(o.Spec.Selector) == 0 {
					t.Errorf("%s: the service %s selects nothing", dir, o.Name)
				}
				if local := corev1.ServiceInternalTrafficPolicyLocal; dir == "../node" && (o.Spec.InternalTrafficPolicy == nil || *o.Spec.InternalTrafficPolicy != local) {
					t.Errorf("the service of the nodes' caches leaves the node")
				}
			}
			if pod != nil {
				checkPod(t, dir, pod, selector, labels)
			}
			if r.GetKind() != "PriorityClass" && r.GetKind() != "Namespace" && r.GetNamespace() != "mcached" {
				t.Errorf("%s: %s %s is in the namespace %q", dir, kind, r.GetName(), r.GetNamespace())
			}
		}
		for _, want := range []string{workload, "Service", "NetworkPolicy", "Namespace", "ServiceMonitor"} {
			if !kinds[want] {
				t.Errorf("%s: has no %s", dir, want)
			}
		}
	}
}

// checkPod holds a pod to what the README promises.
func checkPod(t *testing.T, dir string, pod *corev1.PodSpec, selector, labels map[string]string) {
	t.Helper()
	for k, v := range selector {
		if labels[k] != v {
			t.Errorf("%s: the pods do not have the label %s=%s that selects them", dir, k, v)
		}
	}
	if len(pod.Containers) != 1 {
		t.Fatalf("%s: %d containers", dir, len(pod.Containers))
	}
	c := pod.Containers[0]
	s := c.SecurityContext
	if pod.SecurityContext == nil || pod.SecurityContext.RunAsNonRoot == nil || !*pod.SecurityContext.RunAsNonRoot ||
		s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation {
		t.Errorf("%s: the pod could run as root, or write, or become more", dir)
	}
	if c.ReadinessProbe == nil || c.LivenessProbe == nil || c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Memory().IsZero() {
		t.Errorf("%s: probes, a memory request and a memory limit are a must", dir)
	}
	if !strings.Contains(strings.Join(c.Args, " "), "--memory.") {
		t.Errorf("%s: nothing says how much memory it may use", dir)
	}
}
