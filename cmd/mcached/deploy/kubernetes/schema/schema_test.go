// Package schema checks the Kubernetes manifests as a cluster would: built by
// kustomize itself, every object decoded strictly into the API's own types. It
// is a module of its own, because the daemon has no use for what that needs.
package schema

import (
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// newObject gives what an object of a kind is decoded into. The PodMonitor is
// the Prometheus operator's; it has few enough fields to be spelt here.
var newObject = map[string]func() any{
	"v1/Namespace":                       func() any { return &corev1.Namespace{} },
	"v1/Service":                         func() any { return &corev1.Service{} },
	"apps/v1/DaemonSet":                  func() any { return &appsv1.DaemonSet{} },
	"apps/v1/StatefulSet":                func() any { return &appsv1.StatefulSet{} },
	"networking.k8s.io/v1/NetworkPolicy": func() any { return &networkingv1.NetworkPolicy{} },
	"policy/v1/PodDisruptionBudget":      func() any { return &policyv1.PodDisruptionBudget{} },
	"scheduling.k8s.io/v1/PriorityClass": func() any { return &schedulingv1.PriorityClass{} },
	"monitoring.coreos.com/v1/PodMonitor": func() any {
		return &struct {
			APIVersion, Kind string
			Metadata         map[string]any
			Spec             struct {
				Selector            map[string]any
				PodMetricsEndpoints []struct {
					Port, Interval string
					Relabelings    []struct{ TargetLabel, Replacement string }
				}
			}
		}{}
	},
}

// variants are what the README tells to apply: a directory, and components added to it.
var variants = []struct {
	dir        string
	components []string
	kinds      []string // beside Namespace and Service
	volume     bool     // there is one to write a snapshot to
}{
	{"node", nil, []string{"DaemonSet", "PriorityClass"}, false},
	{"node", []string{"snapshot-node"}, []string{"DaemonSet", "PriorityClass"}, true},
	{"standalone", nil, []string{"StatefulSet", "PodDisruptionBudget"}, false},
	{"standalone", []string{"snapshot"}, []string{"StatefulSet", "PodDisruptionBudget"}, true},
	{"standalone", []string{"snapshot", "networkpolicy", "podmonitor"}, []string{"StatefulSet", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor"}, true},
	{"standalone", []string{"cluster"}, []string{"StatefulSet", "PodDisruptionBudget"}, false},
	{"standalone", []string{"cluster", "snapshot", "networkpolicy"}, []string{"StatefulSet", "PodDisruptionBudget", "NetworkPolicy"}, true},
	{"node", []string{"cluster-node"}, []string{"DaemonSet", "PriorityClass", "PodDisruptionBudget"}, false},
	{"node", []string{"snapshot-node", "cluster-node", "networkpolicy"}, []string{"DaemonSet", "PriorityClass", "PodDisruptionBudget", "NetworkPolicy"}, true},
	{"redis", nil, []string{"DaemonSet", "PriorityClass"}, false},
	{"redis", []string{"networkpolicy", "podmonitor"}, []string{"DaemonSet", "PriorityClass", "NetworkPolicy", "PodMonitor"}, false},
}

// image is what `kustomize edit set image` is given.
const image = "registry.example/team/mcached"

// build does what kustomize would with a copy of the directory, its components added and its image set.
func build(t *testing.T, dir string, components []string) resmap.ResMap {
	t.Helper()
	files := filesys.MakeFsInMemory()
	if err := fs.WalkDir(os.DirFS(".."), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".yaml") {
			return err
		}
		b, err := os.ReadFile("../" + path)
		if err != nil {
			return err
		}
		return files.WriteFile("/"+path, b)
	}); err != nil {
		t.Fatal(err)
	}
	name := "/" + dir + "/kustomization.yaml"
	b, err := files.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	more := fmt.Sprintf("images: [{name: mcached, newName: %s, newTag: v1}]\n", image)
	if len(components) > 0 {
		more += "components: [../components/" + strings.Join(components, ", ../components/") + "]\n"
	}
	if err := files.WriteFile(name, append(b, more...)); err != nil {
		t.Fatal(err)
	}
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(files, "/"+dir)
	if err != nil {
		t.Fatalf("%s with %v: %v", dir, components, err)
	}
	return built
}

func TestManifests(t *testing.T) {
	for _, v := range variants {
		name := strings.Join(append([]string{v.dir}, v.components...), " with ")
		built := build(t, v.dir, v.components)
		kinds := map[string]bool{}
		services := map[string][]int32{} // ports by service
		for _, r := range built.Resources() {
			b, err := r.AsYAML()
			if err != nil {
				t.Fatal(err)
			}
			kind := r.GetApiVersion() + "/" + r.GetKind()
			kinds[r.GetKind()] = true
			make, ok := newObject[kind]
			if !ok {
				t.Errorf("%s: no type to check a %s by", name, kind)
				continue
			}
			o := make()
			if err := yaml.UnmarshalStrict(b, o); err != nil {
				t.Errorf("%s: %s %s: %v", name, kind, r.GetName(), err)
			}
			if r.GetKind() != "PriorityClass" && r.GetKind() != "Namespace" && r.GetNamespace() != "mcached" {
				t.Errorf("%s: %s %s is in the namespace %q", name, kind, r.GetName(), r.GetNamespace())
			}
			switch o := o.(type) {
			case *appsv1.DaemonSet:
				checkPod(t, name, v.volume, &o.Spec.Template, o.Spec.Selector.MatchLabels)
				if len(o.Spec.Template.Spec.Tolerations) == 0 {
					t.Errorf("%s: nodes with taints have no cache", name)
				}
			case *appsv1.StatefulSet:
				checkPod(t, name, v.volume, &o.Spec.Template, o.Spec.Selector.MatchLabels)
				if len(o.Spec.Template.Spec.TopologySpreadConstraints) == 0 {
					t.Errorf("%s: all may be on one node", name)
				}
				if len(o.Spec.VolumeClaimTemplates) > 0 != v.volume {
					t.Errorf("%s: %d claims of volumes", name, len(o.Spec.VolumeClaimTemplates))
				}
			case *corev1.Service:
				for _, p := range o.Spec.Ports {
					services[o.Name] = append(services[o.Name], p.Port)
				}
				if len(o.Spec.Selector) == 0 {
					t.Errorf("%s: the service %s selects nothing", name, o.Name)
				}
				local := o.Spec.InternalTrafficPolicy != nil && *o.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal
				if o.Name == "mcached" && local != (v.dir != "standalone") {
					t.Errorf("%s: the service leaves the node, or should", name)
				}
			case *networkingv1.NetworkPolicy:
				if slices.Contains(o.Spec.PolicyTypes, networkingv1.PolicyTypeEgress) {
					t.Errorf("%s: it cannot forward", name)
				}
			}
		}
		want := append([]string{"Namespace", "Service"}, v.kinds...)
		for _, k := range want {
			if !kinds[k] {
				t.Errorf("%s: has no %s", name, k)
			}
		}
		if len(kinds) != len(want) {
			t.Errorf("%s: has the kinds %v, want %v: what the cluster does not know cannot be applied", name, kinds, want)
		}
		if ports := services["mcached"]; !slices.Contains(ports, 9201) || slices.Contains(ports, 6379) != (v.dir == "redis") {
			t.Errorf("%s: the service has the ports %v", name, ports)
		}
	}
}

// checkPod holds a pod to what the README promises.
func checkPod(t *testing.T, name string, volume bool, template *corev1.PodTemplateSpec, selector map[string]string) {
	t.Helper()
	pod := &template.Spec
	for k, v := range selector {
		if template.Labels[k] != v {
			t.Errorf("%s: the pods do not have the label %s=%s that selects them", name, k, v)
		}
	}
	if template.Annotations["prometheus.io/scrape"] != "true" || template.Annotations["prometheus.io/port"] != "9201" {
		t.Errorf("%s: nobody scrapes the pods: %v", name, template.Annotations)
	}
	if len(pod.Containers) != 1 {
		t.Fatalf("%s: %d containers", name, len(pod.Containers))
	}
	c := pod.Containers[0]
	if c.Image != image+":v1" {
		t.Errorf("%s: kustomize edit set image leaves %s", name, c.Image)
	}
	s := c.SecurityContext
	if pod.SecurityContext == nil || pod.SecurityContext.RunAsNonRoot == nil || !*pod.SecurityContext.RunAsNonRoot ||
		s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation {
		t.Errorf("%s: the pod could run as root, or write, or become more", name)
	}
	for what, p := range map[string]*corev1.Probe{"startup": c.StartupProbe, "readiness": c.ReadinessProbe, "liveness": c.LivenessProbe} {
		if p == nil || p.HTTPGet == nil || p.HTTPGet.Path != "/-/healthy" && p.HTTPGet.Path != "/-/ready" {
			t.Errorf("%s: the %s probe is of a path that may want a password, or there is none", name, what)
		}
	}
	if p := c.StartupProbe; p != nil && p.PeriodSeconds*p.FailureThreshold < 900 {
		t.Errorf("%s: a large snapshot is not read in %d s", name, p.PeriodSeconds*p.FailureThreshold)
	}
	if c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Memory().IsZero() {
		t.Errorf("%s: a memory request and a memory limit are a must", name)
	}
	args := strings.Join(c.Args, " ")
	if !strings.Contains(args, "--memory.") {
		t.Errorf("%s: nothing says how much memory it may use", name)
	}
	mounted := slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == "/var/lib/mcached" })
	if snapshot := strings.Contains(args, "--snapshot.path=/var/lib/mcached/"); snapshot != volume || mounted != volume || volume && *pod.TerminationGracePeriodSeconds < 900 {
		t.Errorf("%s: a snapshot: %v, where to write it: %v, %d s to do so", name, snapshot, mounted, *pod.TerminationGracePeriodSeconds)
	}
	if member := strings.Contains(args, "--cluster.join="); member {
		var env []string
		for _, e := range c.Env {
			env = append(env, e.Name)
		}
		if !slices.Equal(env, []string{"POD_IP", "MEMBER", "ZONE"}) || !slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Secret != nil && v.Secret.SecretName == "mcached-cluster" }) ||
			!slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == "/etc/mcached-cluster" && m.ReadOnly }) {
			t.Errorf("%s: a member has the variables %v, or no key", name, env)
		}
	}
	ports := map[string]bool{}
	for _, p := range c.Ports {
		ports[fmt.Sprint(p.Name, p.ContainerPort)] = true
	}
	if !ports["http9201"] || ports["redis6379"] != strings.Contains(args, "--resp.listen-address=:6379") {
		t.Errorf("%s: ports %v for %s", name, ports, args)
	}
}
