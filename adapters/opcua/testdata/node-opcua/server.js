// An OPC UA server for the tests: node-opcua, which shares no line with the
// library of the adapter. Started by nodeopcua_test.go with NODE_PATH set to a
// node_modules folder that has the packages of package.json.
//
// Options, all of them optional:
//   --port N            default: a free one; a restart keeps it
//   --pki DIR           where it keeps its own key and others' certificates
//   --certificate FILE --key FILE    instead of a certificate of its own
//   --limits N          OperationLimits: at most N operations in any request
//   --counters N        N variables ns=1;s=counter0 … that all hold n, and
//   --every MS          how often n rises by one (default 1000)
//   --machine           a drive to write to: setpoint, remote, stubborn (which
//                       keeps its value), guarded (which refuses) and Start(hz)
//   --alarm             an alarm "too hot" of an object oven, on above 100
//   --conformance       the address space for conformance testing
//   --user NAME:WORD    a user, beside those with a certificate; anonymous sessions
//                       are refused then
//   --security LIST     None,Basic256Sha256,Aes128_Sha256_RsaOaep,Aes256_Sha256_RsaPss
//   --modes LIST        None,Sign,SignAndEncrypt
//
// It says one line of JSON when it is up, {"endpoint": …}, and one for each
// command on its standard input: {"done": command, …} or {"error": …}.
//   count           says n
//   hold, go        n stands still; n rises again
//   restart [ID]    ends and begins anew, without a node: sessions and subscriptions are gone
//   drop            closes all sessions; subscriptions stay for a while
//   unsubscribe     deletes all subscriptions; sessions stay
//   heat N          makes the oven N degrees hot
//   remove ID       deletes a node
//   writes          what was written to the machine, in order
//   add ID          makes a node again: a variable that holds n
"use strict";

console.log = console.error; // what the packages have to say is no answer

const readline = require("node:readline");
const { parseArgs } = require("node:util");
const { OPCUACertificateManager } = require("node-opcua-certificate-manager");
const { MessageSecurityMode, SecurityPolicy } = require("node-opcua-secure-channel");
const { OPCUAServer } = require("node-opcua-server");
const { DataType, Variant } = require("node-opcua-variant");
const { StatusCodes } = require("node-opcua-status-code");

const { values: options } = parseArgs({
  options: {
    port: { type: "string", default: "0" },
    pki: { type: "string" },
    certificate: { type: "string" },
    key: { type: "string" },
    limits: { type: "string" },
    counters: { type: "string", default: "0" },
    every: { type: "string", default: "1000" },
    machine: { type: "boolean", default: false },
    alarm: { type: "boolean", default: false },
    conformance: { type: "boolean", default: false },
    user: { type: "string" },
    security: { type: "string", default: "None" },
    modes: { type: "string", default: "None" },
  },
});

const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");

let n = 0; // what all counters hold
let held = false;
let port = Number(options.port);
let server;
let counters = [];

function serverOptions() {
  const [user, word] = (options.user ?? "").split(":");
  const o = {
    port,
    hostname: "127.0.0.1",
    allowAnonymous: !options.user,
    securityPolicies: options.security.split(",").map((name) => SecurityPolicy[name]),
    securityModes: options.modes.split(",").map((name) => MessageSecurityMode[name]),
    userManager: { isValidUser: (name, password) => name === user && password === word },
    maxConnectionsPerEndpoint: 100,
    serverCapabilities: { maxSessions: 100, maxSubscriptions: 1000, maxMonitoredItems: 200000, maxMonitoredItemsPerSubscription: 200000 },
  };
  if (options.certificate) {
    o.certificateFile = options.certificate;
    o.privateKeyFile = options.key;
  }
  if (options.pki) {
    o.serverCertificateManager = new OPCUACertificateManager({ rootFolder: options.pki, automaticallyAcceptUnknownCertificate: true });
    o.userCertificateManager = new OPCUACertificateManager({ rootFolder: options.pki + "/users", automaticallyAcceptUnknownCertificate: true });
  }
  if (options.limits) {
    const most = Number(options.limits);
    o.serverCapabilities.operationLimits = {
      maxNodesPerRead: most,
      maxNodesPerWrite: most,
      maxNodesPerBrowse: most,
      maxNodesPerMethodCall: most,
      maxNodesPerRegisterNodes: most,
      maxNodesPerTranslateBrowsePathsToNodeIds: most,
      maxMonitoredItemsPerCall: most,
    };
  }
  return o;
}

function addCounter(nodeId, name) {
  const space = server.engine.addressSpace;
  const counter = space.getOwnNamespace().addVariable({
    organizedBy: space.rootFolder.objects,
    browseName: name,
    nodeId,
    dataType: "UInt32",
    minimumSamplingInterval: 0,
    value: { dataType: DataType.UInt32, value: n },
  });
  counters.push(counter);
  show(counter);
}

let writes = []; // to the machine

// addMachine makes variables that note what is written to them, and a method.
function addMachine() {
  const space = server.engine.addressSpace;
  const namespace = space.getOwnNamespace();
  const held = { setpoint: 30, remote: true, stubborn: 1, guarded: 1, running: 0 };
  const machine = namespace.addObject({ organizedBy: space.rootFolder.objects, browseName: "machine", nodeId: "s=machine" });
  for (const [name, first] of Object.entries(held)) {
    const dataType = typeof first === "boolean" ? "Boolean" : "Double";
    namespace.addVariable({
      componentOf: machine, browseName: name, nodeId: `s=${name}`, dataType, minimumSamplingInterval: 100,
      value: {
        get: () => new Variant({ dataType: DataType[dataType], value: held[name] }),
        set: (variant) => {
          writes.push(`${name}=${variant.value}`);
          if (name === "guarded") return StatusCodes.BadOutOfRange;
          if (name !== "stubborn") held[name] = variant.value;
          return StatusCodes.Good;
        },
      },
    });
  }
  const method = namespace.addMethod(machine, {
    browseName: "Start", nodeId: "s=Start", inputArguments: [{ name: "hz", dataType: DataType.Float }], outputArguments: [],
  });
  method.bindMethod((inputs, _context, answer) => {
    writes.push(`Start(${inputs[0].value})`);
    if (inputs[0].value === 13) return answer(null, { statusCode: StatusCodes.BadInvalidState });
    held.running = inputs[0].value;
    answer(null, { statusCode: StatusCodes.Good, outputArguments: [] });
  });
}

let heat = 20;
let oven;

function addOven() {
  const space = server.engine.addressSpace;
  space.installAlarmsAndConditionsService();
  const namespace = space.getOwnNamespace();
  const object = namespace.addObject({ browseName: "oven", organizedBy: space.rootFolder.objects, eventSourceOf: space.rootFolder.objects.server });
  oven = namespace.addVariable({ componentOf: object, browseName: "heat", dataType: "Double", value: { dataType: DataType.Double, value: heat } });
  const alarm = namespace.instantiateExclusiveLimitAlarm("ExclusiveLimitAlarmType", {
    browseName: "too hot",
    componentOf: object,
    conditionSource: object,
    conditionName: "too hot",
    inputNode: oven,
    highHighLimit: 1000,
    highLimit: 100,
    lowLimit: -100,
    lowLowLimit: -1000,
  });
  alarm.setEnabledState(true);
  oven.setValueFromSource({ dataType: DataType.Double, value: heat });
}

function show(counter) {
  counter.setValueFromSource({ dataType: DataType.UInt32, value: n });
}

async function start(without) {
  server = new OPCUAServer(serverOptions());
  await server.initialize();
  if (options.conformance) {
    const { build_address_space_for_conformance_testing: build } = require("node-opcua-address-space-for-conformance-testing");
    await build(server.engine.addressSpace);
  }
  if (options.machine) {
    addMachine();
  }
  if (options.alarm) {
    addOven();
  }
  for (let i = 0; i < Number(options.counters); i++) {
    if (`s=counter${i}` !== without) {
      addCounter(`s=counter${i}`, `counter${i}`);
    }
  }
  await server.start();
  port = server.endpoints[0].port;
}

function forEachSession(work) {
  const sessions = Object.values(server.engine._sessions);
  sessions.forEach(work);
  return sessions.length;
}

function find(nodeId) {
  return server.engine.addressSpace.getOwnNamespace().findNode(nodeId);
}

const commands = {
  count: () => ({ n }),
  hold: () => {
    held = true;
    return { n };
  },
  go: () => {
    held = false;
  },
  restart: async (without) => {
    counters = [];
    await server.shutdown(0);
    await start(without);
  },
  drop: () => ({ sessions: forEachSession((session) => server.engine.closeSession(session.authenticationToken, false, "Terminated")) }),
  unsubscribe: () => {
    let subscriptions = 0;
    forEachSession((session) => {
      for (const subscription of [...session.publishEngine.subscriptions]) {
        session.deleteSubscription(subscription.id);
        subscriptions++;
      }
    });
    return { subscriptions };
  },
  heat: (degrees) => {
    heat = Number(degrees);
    oven.setValueFromSource({ dataType: DataType.Double, value: heat });
  },
  remove: (nodeId) => {
    const node = find(nodeId);
    if (!node) {
      throw new Error(`there is no node ${nodeId}`);
    }
    counters = counters.filter((counter) => counter !== node);
    server.engine.addressSpace.deleteNode(node);
  },
  writes: () => ({ writes }),
  add: (nodeId) => addCounter(nodeId, nodeId.slice(2)),
};

async function main() {
  await start();
  setInterval(() => {
    if (!held) {
      n++;
      counters.forEach(show);
    }
  }, Number(options.every));
  say({ endpoint: `opc.tcp://127.0.0.1:${port}` });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [command, argument] = line.trim().split(/ (.*)/);
    try {
      if (!Object.hasOwn(commands, command)) {
        throw new Error("there is no such command");
      }
      say({ done: command, ...(await commands[command](argument)) });
    } catch (error) {
      say({ error: `${line}: ${error.message}` });
    }
  }
  process.exit(0); // whoever started it is gone
}

main().catch((error) => {
  say({ error: String(error.stack) });
  process.exit(1);
});
