// Drives ioredis and node-redis as clients of a cluster at the address given.
const Redis = require('ioredis');
const redis = require('redis');

const [host, port] = process.argv[2].split(':');

async function withIoredis() {
  const c = new Redis.Cluster([{ host, port: Number(port) }]);
  for (let i = 0; i < 100; i++) await c.set('io' + i, String(i));
  let n = 0;
  for (let i = 0; i < 100; i++) if ((await c.get('io' + i)) === String(i)) n++;
  n += 100 - (await Promise.all(Array.from({ length: 100 }, (_, i) => c.get('io' + i)))).filter((v, i) => v !== String(i)).length;
  console.log(`ioredis: ${c.nodes('master').length} masters, ${n} keys`);
  c.disconnect();
}

async function withNodeRedis() {
  const c = redis.createCluster({ rootNodes: [{ url: `redis://${host}:${port}` }] });
  await c.connect();
  let n = 0;
  for (let i = 0; i < 200; i++) await c.set('node' + i, String(i));
  for (let i = 0; i < 200; i++) if ((await c.get('node' + i)) === String(i)) n++;
  console.log(`node-redis: ${c.masters.length} masters, ${n} keys`);
  await c.close();
}

withIoredis().then(withNodeRedis).catch((e) => { console.error(e); process.exit(1); });
