// A Vulkan layer that loses the device: from call number APR_TEST_LOSE_AFTER on, the function
// that APR_TEST_LOSE_CALL names fails with APR_TEST_LOSE_RESULT, as a driver's does whose GPU is gone.
// The first time that it does it says so on stderr.
// Structures are those of vulkan.h and vk_layer.h, as far as they are used.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

long write(int, const void *, size_t); // unistd.h has a function called link too

typedef void (*fn)(void);
typedef fn (*get)(void *, const char *);

typedef struct link {
	struct link *next;
	get instance;
	fn other; // of the device, in a device's link
} link;

// VkLayerInstanceCreateInfo and VkLayerDeviceCreateInfo
typedef struct info {
	int type;
	struct info *next;
	int function; // 0: links
	link *links;
} info;

static get nextInstance, nextDevice;
static fn realSubmit, realWait, realCounter, realAllocate;
static int calls;

static int lost(const char *name) {
	const char *which = getenv("APR_TEST_LOSE_CALL"), *after = getenv("APR_TEST_LOSE_AFTER"), *result = getenv("APR_TEST_LOSE_RESULT");
	if (!which || !after || !result || strcmp(which, name) != 0)
		return 0;
	int n = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST) - atoi(after);
	static const char said[] = "lossy: the call fails\n";
	if (n == 1 && write(2, said, sizeof said - 1) < 0)
		abort();
	return n > 0 ? atoi(result) : 0;
}

static int submit(void *queue, uint32_t n, const void *submits, uint64_t fence) {
	int r = lost("vkQueueSubmit");
	return r ? r : ((int (*)(void *, uint32_t, const void *, uint64_t))realSubmit)(queue, n, submits, fence);
}

static int await(void *device, const void *what, uint64_t timeout) {
	int r = lost("vkWaitSemaphores");
	return r ? r : ((int (*)(void *, const void *, uint64_t))realWait)(device, what, timeout);
}

static int counter(void *device, uint64_t semaphore, uint64_t *value) {
	int r = lost("vkGetSemaphoreCounterValue");
	return r ? r : ((int (*)(void *, uint64_t, uint64_t *))realCounter)(device, semaphore, value);
}

static int allocate(void *device, const void *what, const void *how, uint64_t *memory) {
	int r = lost("vkAllocateMemory");
	return r ? r : ((int (*)(void *, const void *, const void *, uint64_t *))realAllocate)(device, what, how, memory);
}

static info *links(info *list, int type) {
	while (list && !(list->type == type && list->function == 0))
		list = list->next;
	return list;
}

static int createInstance(const void *what, const void *how, void **instance) {
	info *i = links(((info *)what)->next, 47);
	nextInstance = i->links->instance;
	i->links = i->links->next;
	return ((int (*)(const void *, const void *, void **))nextInstance(NULL, "vkCreateInstance"))(what, how, instance);
}

static int createDevice(void *physical, const void *what, const void *how, void **device) {
	info *i = links(((info *)what)->next, 48);
	get instance = i->links->instance;
	nextDevice = (get)i->links->other;
	i->links = i->links->next;
	return ((int (*)(void *, const void *, const void *, void **))instance(NULL, "vkCreateDevice"))(physical, what, how, device);
}

static fn deviceFunction(void *device, const char *name) {
	struct { const char *name; fn ours, *theirs; } table[] = {
		{"vkQueueSubmit", (fn)submit, &realSubmit},
		{"vkWaitSemaphores", (fn)await, &realWait},
		{"vkWaitSemaphoresKHR", (fn)await, &realWait},
		{"vkGetSemaphoreCounterValue", (fn)counter, &realCounter},
		{"vkGetSemaphoreCounterValueKHR", (fn)counter, &realCounter},
		{"vkAllocateMemory", (fn)allocate, &realAllocate},
	};
	fn found = nextDevice(device, name);
	for (unsigned i = 0; i < sizeof table / sizeof *table; i++)
		if (found && strcmp(name, table[i].name) == 0) {
			*table[i].theirs = found;
			return table[i].ours;
		}
	return strcmp(name, "vkGetDeviceProcAddr") == 0 ? (fn)deviceFunction : found;
}

static fn instanceFunction(void *instance, const char *name) {
	if (strcmp(name, "vkGetInstanceProcAddr") == 0)
		return (fn)instanceFunction;
	if (strcmp(name, "vkGetDeviceProcAddr") == 0)
		return (fn)deviceFunction;
	if (strcmp(name, "vkCreateInstance") == 0)
		return (fn)createInstance;
	if (strcmp(name, "vkCreateDevice") == 0)
		return (fn)createDevice;
	return nextInstance(instance, name);
}

// VkNegotiateLayerInterface
typedef struct {
	int type;
	void *next;
	uint32_t version;
	get instance, device, physical;
} negotiation;

int vkNegotiateLoaderLayerInterfaceVersion(negotiation *n) {
	n->version = 2;
	n->instance = instanceFunction;
	n->device = deviceFunction;
	n->physical = NULL;
	return 0;
}
