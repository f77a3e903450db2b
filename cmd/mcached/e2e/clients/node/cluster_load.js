// ioredis' or node-redis' cluster writes and reads until it is ended, and says how it goes: see go/cluster.go.
const Redis = require('ioredis');
const redis = require('redis');

const KEYS = 100;
const [name, port] = [process.argv[2], Number(process.argv[3])];

let c; // in use

async function withIoredis() {
  c = new Redis.Cluster([{ host: '127.0.0.1', port }], { slotsRefreshInterval: 1000 });
  c.on('error', () => {});
  await c.get('any');
  return c.nodes('master').length;
}

// node-redis asks where keys are only when a member sends it elsewhere, and keeps
// what is for one that has gone forever: then a new client is the way.
async function withNodeRedis() {
  const next = redis.createCluster({ rootNodes: [{ url: `redis://127.0.0.1:${port}` }], minimizeConnections: true });
  next.on('error', () => {});
  next.on('node-reconnecting', () => {
    if (c !== next) return;
    c = null;
    next.destroy();
    setTimeout(withNodeRedis, 200);
  });
  await next.connect();
  c = next;
  return next.masters.length;
}

async function main() {
  console.log('masters', await (name === 'ioredis' ? withIoredis() : withNodeRedis()));
  const acked = Array(KEYS).fill(null);
  const maybe = Array.from({ length: KEYS }, () => new Set());
  let served = 0;
  async function did(f) {
    try {
      if (!c) throw new Error('no client');
      const got = await f();
      if (++served % 50 === 0) console.log('served', served);
      return [true, got];
    } catch (e) {
      console.log('error', Date.now(), e.message);
      await new Promise((r) => setTimeout(r, 20));
      return [false, null];
    }
  }
  async function look(i) {
    const [ok, v] = await did(() => c.get(name + i));
    if (ok && v !== null && v !== acked[i] && !maybe[i].has(v)) console.log('wrong', `${name}${i} is ${v}, acknowledged was ${acked[i]}`);
  }
  for (let n = 0; ; n++) {
    const i = n % KEYS;
    const [ok] = await did(() => c.set(name + i, String(n)));
    if (ok) acked[i] = String(n);
    else maybe[i].add(String(n));
    await look(i);
    await look((n * 37) % KEYS);
    await new Promise((r) => setTimeout(r, 2));
  }
}

main().catch((e) => { console.error(e); process.exit(1); });
