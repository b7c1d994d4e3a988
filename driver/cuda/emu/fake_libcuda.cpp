// fake_libcuda.cpp: a libcuda.so.1 for machines without a GPU: the driver calls
// that package driver/cuda makes, with kernels run by the emulation. For tests
// only. It is strict where a driver is: calls need a current context, copies must
// lie within an allocation, a kernel that reads or writes outside device memory
// loses its context. emu_control makes things fail on purpose.
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
#include "cuda_emu.h"
#include "emu_run.h"
#include <chrono>
#include <mutex>
#include <sys/mman.h>
#include <thread>

typedef int R;
enum { OK = 0, INVALID = 1, NO_MEMORY = 2, NOT_INITIALIZED = 3, NO_DEVICE = 100, INVALID_CONTEXT = 201, NO_BINARY = 209, INVALID_PTX = 218, NOT_FOUND = 500, ILLEGAL_ADDRESS = 700 };

// What emu_control sets; see package emutest.
static std::map<std::string, long> setting, count;
static long get(const char *key, long dflt) { auto i = setting.find(key); return i == setting.end() ? dflt : i->second; }

static const size_t page = 4096;
struct Alloc { char *map; size_t mapBytes, bytes; };
struct Func { std::string name; const emu::Kernel *k; int maxThreads; long maxShared; };
struct Node {
	enum { KERNEL, COPY, FILL } kind;
	Func *f;
	dim3 g, b;
	size_t shared;
	std::vector<u64> a;
	void *dst;
	const void *src;
	size_t n;
	u8 v;
};
struct Graph { std::vector<Node> n; };
struct Ctx {
	std::map<char *, Alloc> mem;
	std::vector<Func *> funcs;
	R error = OK; // of a kernel; every later call returns it
	Graph *capture = nullptr;
};
static thread_local Ctx *current;
static bool initialised;
static size_t used;
static std::recursive_mutex mu; // one kernel at a time: the emulation's state is global

// injected makes a call fail that emu_control has named: "fail cuGraphLaunch".
static bool injecting;
static R injected(const char *call) {
	auto i = setting.find(std::string("fail ") + call);
	if (i == setting.end() || i->second < 0 || i->second-- > 0) return OK;
	if (long ms = get("hang", 0)) std::this_thread::sleep_for(std::chrono::milliseconds(ms));
	R code = (R)get("fail code", ILLEGAL_ADDRESS);
	if (!get("fail at once", 0)) current->error = code;
	return code;
}

// Every call that needs a context begins with this.
#define ENTER                                                                                      \
	std::lock_guard<std::recursive_mutex> guard(mu);                                               \
	if (!current) return INVALID_CONTEXT;                                                          \
	if (current->error) return current->error;                                                     \
	if (injecting) if (R r = injected(__func__)) return r;

// within finds whether [p, p+n) lies in one allocation.
static bool within(const void *p, size_t n) {
	auto i = current->mem.upper_bound((char *)p);
	if (i == current->mem.begin()) return false;
	--i;
	return (char *)p + n <= i->first + i->second.bytes;
}

static R run(const Node &n) {
	switch (n.kind) {
	case Node::COPY: memcpy(n.dst, n.src, n.n); return OK;
	case Node::FILL: memset(n.dst, n.v, n.n); return OK;
	default: break;
	}
	count["launches"]++;
	count["kernel " + n.f->name]++;
	long after = get("fail after", -1);
	if (after >= 0) {
		if (after == 0) {
			if (long ms = get("hang", 0)) std::this_thread::sleep_for(std::chrono::milliseconds(ms));
			setting["fail after"] = -1;
			if (get("fail at once", 0)) return (R)get("fail code", ILLEGAL_ADDRESS);
			current->error = (R)get("fail code", ILLEGAL_ADDRESS);
			return OK; // as on a GPU, the launch itself is fine
		}
		setting["fail after"] = after - 1;
	}
	std::vector<u64> a = n.a;
	if (const char *what = emu::run(*n.f->k, n.g, n.b, n.shared, a.data())) {
		fprintf(stderr, "emu: kernel %s: %s\n", n.f->name.c_str(), what);
		current->error = ILLEGAL_ADDRESS;
	}
	return OK;
}

static R enqueue(const Node &n) {
	if (current->capture) { current->capture->n.push_back(n); return OK; }
	return run(n);
}

// signature reads the parameters of an entry from PTX in the letters of
// emu::type_of, pointers as 64-bit integers.
static std::string signature(const char *s, const char *end) {
	std::string t;
	while ((s = strstr(s, ".param .")) && s < end) {
		s += 8;
		t += !strncmp(s, "f32", 3) ? 'f' : s[1] == '6' ? 'l' : 'i';
	}
	return t;
}

static void unmap(Ctx *c, std::map<char *, Alloc>::iterator i) {
	used -= i->second.bytes;
	munmap(i->second.map, i->second.mapBytes);
	c->mem.erase(i);
}

extern "C" {
void emu_control(const char *key, long value) {
	std::lock_guard<std::recursive_mutex> guard(mu);
	if (!strcmp(key, "reset")) setting.clear(), count.clear(), injecting = false;
	else setting[key] = value;
	if (!strncmp(key, "fail cu", 7)) injecting = true;
}
int emu_count(const char *key) { std::lock_guard<std::recursive_mutex> guard(mu); return (int)count[key]; }

R cuInit(unsigned) { R r = (R)get("init", OK); initialised = r == OK; return r; }
R cuDriverGetVersion(int *v) { *v = (int)get("version", 13000); return OK; }
R cuDeviceGetCount(int *n) { *n = (int)get("devices", 1); return initialised ? OK : NOT_INITIALIZED; }
R cuDeviceGet(int *d, int i) { *d = i; return i < get("devices", 1) ? OK : NO_DEVICE; }
R cuDeviceGetName(char *s, int n, int) { snprintf(s, n, "CPU emulation"); return OK; }
static size_t total() { return (size_t)get("memory", 8L << 30); }
R cuDeviceTotalMem_v2(size_t *s, int) { *s = total(); return OK; }
R cuDeviceGetUuid(u8 *u, int d) { memset(u, 0, 16); u[15] = (u8)d; return OK; }
R cuDeviceGetAttribute(int *v, int a, int) {
	long cc = get("capability", 90);
	switch (a) {
	case 75: *v = (int)cc / 10; break;
	case 76: *v = (int)cc % 10; break;
	case 16: *v = (int)get("sms", 2); break;
	case 38: *v = 1 << 20; break;
	case 97: *v = 232448; break;
	default: *v = 0;
	}
	return OK;
}
R cuCtxCreate_v2(void **c, unsigned, int) { if (!initialised) return NOT_INITIALIZED; *c = current = new Ctx; return OK; }
R cuCtxDestroy_v2(void *p) {
	std::lock_guard<std::recursive_mutex> guard(mu);
	Ctx *c = (Ctx *)p;
	while (!c->mem.empty()) unmap(c, c->mem.begin());
	for (Func *f : c->funcs) delete f;
	delete c->capture;
	if (current == c) current = nullptr;
	delete c;
	return OK;
}
R cuCtxSetCurrent(void *c) { current = (Ctx *)c; return OK; }
R cuCtxSynchronize() { ENTER return OK; }
R cuMemGetInfo_v2(size_t *f, size_t *t) { ENTER *t = total(), *f = total() - used; return OK; }

R cuModuleLoadDataEx(void **m, const void *img, unsigned n, int *opt, void **val) {
	ENTER
	const char *s = (const char *)img, *t = strstr(s, ".target sm_");
	if (!strstr(s, ".version") || !t) {
		for (unsigned i = 0; i < n; i++) if (opt[i] == 5) strcpy((char *)val[i], "no .version or .target: not PTX");
		return INVALID_PTX;
	}
	if (atoi(t + 11) > get("capability", 90)) return NO_BINARY;
	for (auto &r : setting) {
		if (r.first.rfind("refuse ", 0) || !strstr(s, (".entry " + r.first.substr(7) + "(").c_str())) continue;
		for (unsigned i = 0; i < n; i++) if (opt[i] == 5) strcpy((char *)val[i], "refused on purpose");
		return INVALID_PTX;
	}
	for (unsigned i = 0; i < n; i++) if (opt[i] == 34) {
		if (get("no parallel compiler", 0)) return INVALID;
		count["modules in parallel"]++;
	}
	count["modules"]++;
	*m = strdup(s);
	return OK;
}
R cuModuleUnload(void *m) { ENTER free(m); return OK; }
R cuModuleGetFunction(void **f, void *m, const char *name) {
	ENTER
	const char *s = strstr((char *)m, (".entry " + std::string(name) + "(").c_str());
	auto k = emu::kernels().find(name);
	if (!s || k == emu::kernels().end()) return NOT_FOUND;
	const char *end = strchr(strchr(s, '(') + 1, ')');
	const char *body = strchr(end, '{'), *bound = strstr(end, ".maxntid ");
	std::string want = k->second.types;
	for (char &c : want) if (c == 'p') c = 'l';
	if (signature(s, end) != want) {
		fprintf(stderr, "emu: %s takes %s in the PTX and %s in the source\n", name, signature(s, end).c_str(), want.c_str());
		return INVALID;
	}
	Func *fn = new Func{name, &k->second, bound && bound < body ? atoi(bound + 9) : 1024, 48 << 10};
	current->funcs.push_back(fn);
	*f = fn;
	return OK;
}
R cuFuncSetAttribute(void *f, int a, int v) {
	ENTER
	if (a == 8) { if (v > 232448) return INVALID; ((Func *)f)->maxShared = v; }
	return OK;
}
R cuFuncGetAttribute(int *v, int, void *) { ENTER *v = 0; return OK; }
R cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, void *, int threads, size_t) { ENTER *n = 2048 / threads; return OK; }

// An allocation ends at a page that nobody may touch, and begins after one.
R cuMemAlloc_v2(void **p, size_t n) {
	ENTER
	if (!n) return INVALID;
	size_t bytes = (n + 255) / 256 * 256;
	if (used + bytes > total()) return NO_MEMORY;
	size_t body = (bytes + page - 1) / page * page, all = body + 2 * page;
	char *m = (char *)mmap(nullptr, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m == MAP_FAILED) return NO_MEMORY;
	mprotect(m + page, body, PROT_READ | PROT_WRITE);
	char *at = m + page + body - bytes;
	if (bytes <= 16 << 20) memset(at, 0xff, bytes); // NaNs; larger ones stay untouched
	used += bytes;
	current->mem[at] = {m, all, bytes};
	*p = at;
	return OK;
}
R cuMemFree_v2(void *p) {
	ENTER
	auto i = current->mem.find((char *)p);
	if (i == current->mem.end()) return INVALID;
	unmap(current, i);
	return OK;
}
R cuMemHostAlloc(void **p, size_t n, unsigned) { ENTER *p = aligned_alloc(page, (n + page - 1) / page * page); return *p ? OK : NO_MEMORY; }
R cuMemFreeHost(void *p) { ENTER free(p); return OK; }
R cuMemHostRegister_v2(void *p, size_t n, unsigned) { ENTER return p && n ? OK : INVALID; }
R cuMemHostUnregister(void *) { ENTER return OK; }
R cuMemcpyHtoDAsync_v2(void *d, const void *h, size_t n, void *) {
	ENTER
	if (!within(d, n)) return INVALID;
	Node c{Node::COPY};
	c.dst = d, c.src = h, c.n = n;
	return enqueue(c);
}
R cuMemcpyDtoHAsync_v2(void *h, const void *d, size_t n, void *) {
	ENTER
	if (!within(d, n)) return INVALID;
	Node c{Node::COPY};
	c.dst = h, c.src = d, c.n = n;
	return enqueue(c);
}
R cuMemcpyHtoD_v2(void *d, const void *h, size_t n) { return cuMemcpyHtoDAsync_v2(d, h, n, nullptr); }
R cuMemcpyDtoH_v2(void *h, const void *d, size_t n) { return cuMemcpyDtoHAsync_v2(h, d, n, nullptr); }
R cuMemsetD8Async(void *d, u8 v, size_t n, void *) {
	ENTER
	if (!within(d, n)) return INVALID;
	Node c{Node::FILL};
	c.dst = d, c.v = v, c.n = n;
	return enqueue(c);
}

R cuStreamCreate(void **s, unsigned) { ENTER *s = (void *)2; return OK; }
R cuStreamDestroy_v2(void *) { ENTER return OK; }
R cuStreamSynchronize(void *) { ENTER return current->capture ? INVALID : OK; }
R cuStreamQuery(void *) { ENTER return OK; }
R cuStreamBeginCapture_v2(void *, int) { ENTER current->capture = new Graph; return OK; }
R cuStreamEndCapture(void *, void **g) { ENTER *g = current->capture, current->capture = nullptr; return *g ? OK : INVALID; }
R cuGraphInstantiateWithFlags(void **e, void *g, u64) { ENTER *e = new Graph(*(Graph *)g); return OK; }
R cuGraphGetNodes(void *g, void **, size_t *n) { ENTER *n = ((Graph *)g)->n.size(); return OK; }
R cuGraphLaunch(void *e, void *) {
	ENTER
	count["graph launches"]++;
	for (auto &n : ((Graph *)e)->n) {
		if (R r = run(n)) return r;
		if (current->error) break;
	}
	return OK;
}
R cuGraphUpload(void *, void *) { ENTER return OK; }
R cuGraphDestroy(void *g) { ENTER delete (Graph *)g; return OK; }
R cuGraphExecDestroy(void *g) { ENTER delete (Graph *)g; return OK; }
struct Ev { std::chrono::steady_clock::time_point t; };
R cuEventCreate(void **e, unsigned) { ENTER *e = new Ev; return OK; }
R cuEventRecord(void *e, void *) { ENTER ((Ev *)e)->t = std::chrono::steady_clock::now(); return OK; }
R cuEventSynchronize(void *) { ENTER return OK; }
R cuEventElapsedTime(float *ms, void *a, void *b) { ENTER *ms = std::chrono::duration<float, std::milli>(((Ev *)b)->t - ((Ev *)a)->t).count(); return OK; }
R cuEventDestroy_v2(void *e) { ENTER delete (Ev *)e; return OK; }

R cuGetErrorName(int r, const char **s) {
	static const std::map<int, const char *> names = {{INVALID, "CUDA_ERROR_INVALID_VALUE"}, {NO_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"}, {NO_DEVICE, "CUDA_ERROR_NO_DEVICE"},
		{INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"}, {INVALID_PTX, "CUDA_ERROR_INVALID_PTX"}, {NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
		{ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS"}, {719, "CUDA_ERROR_LAUNCH_FAILED"}, {46, "CUDA_ERROR_DEVICE_UNAVAILABLE"}, {214, "CUDA_ERROR_ECC_UNCORRECTABLE"}};
	auto i = names.find(r);
	*s = i == names.end() ? "CUDA_ERROR_EMULATED" : i->second;
	return OK;
}
R cuGetErrorString(int, const char **s) { *s = "said by the emulation"; return OK; }
R cuLaunchKernel(void *fn, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *, void **p, void **) {
	ENTER
	Func *f = (Func *)fn;
	Node n{Node::KERNEL, f, {gx, gy, gz}, {bx, by, bz}, shared, {}, nullptr, nullptr, 0, 0};
	if (!gx || !gy || !gz || gy > 65535 || gz > 65535 || !bx || !by || !bz || (int)(bx * by * bz) > f->maxThreads || (long)shared > f->maxShared) return INVALID;
	for (size_t i = 0; i < f->k->types.size(); i++) { u64 v; memcpy(&v, p[i], 8); n.a.push_back(v); }
	return enqueue(n);
}
struct Attr { u32 id, pad; u8 val[64]; };
struct Cfg { unsigned gx, gy, gz, bx, by, bz, shared; void *stream; Attr *attrs; unsigned n; };
R cuLaunchKernelEx(const Cfg *c, void *f, void **p, void **e) {
	{
		ENTER
		if (c->n != 1 || c->attrs[0].id != 6 || c->attrs[0].val[0] != 1) return INVALID;
		count["overlapped"]++;
	}
	return cuLaunchKernel(f, c->gx, c->gy, c->gz, c->bx, c->by, c->bz, c->shared, c->stream, p, e);
}
}
