// What the template promises, whatever the settings.

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';

import { App } from 'aws-cdk-lib';
import { Match, Template } from 'aws-cdk-lib/assertions';

import { readSettings } from '../lib/settings.ts';
import { FirnStack } from '../lib/stack.ts';

const CLUSTER = 'arn:aws:kafka:eu-central-1:111122223333:cluster/shop/0a1b2c3d-5';
const scratch = mkdtempSync(join(tmpdir(), 'firn-cdk-'));
after(() => rmSync(scratch, { recursive: true, force: true }));
for (const name of ['ingest', 'commit', 'ddl', 'mapping', 'maintain']) {
  mkdirSync(join(scratch, `firn-${name}`));
  writeFileSync(join(scratch, `firn-${name}`, 'bootstrap'), 'not run here');
}

function templateOf(context: Record<string, unknown> = {}): Template {
  const settings = readSettings((name) => ({ bootstraps: scratch, clusterArn: CLUSTER, ...context })[name]);
  const app = new App({ outdir: join(scratch, 'out') });
  return Template.fromStack(new FirnStack(app, settings.stackName, settings));
}

interface Statement {
  Action: string | string[];
  Resource: unknown;
  Condition?: unknown;
}

/** Statements of the policies attached to a function's role. */
function statementsOf(template: Template, role: string): Statement[] {
  return Object.entries(template.findResources('AWS::IAM::Policy'))
    .filter(([id]) => id.startsWith(role))
    .flatMap(([, policy]) => policy.Properties.PolicyDocument.Statement as Statement[]);
}

function actionsOf(statement: Statement): string[] {
  return [statement.Action].flat();
}

const usual = templateOf();
const ROLES = ['Ingest', 'Commit', 'Ddl', 'Mapping', 'Maintain'];

test('bucket_keeps_everything_and_lets_nobody_in', () => {
  usual.resourceCountIs('AWS::S3::Bucket', 1);
  usual.hasResource('AWS::S3::Bucket', {
    DeletionPolicy: 'Retain',
    UpdateReplacePolicy: 'Retain',
    Properties: {
      LifecycleConfiguration: Match.absent(),
      VersioningConfiguration: Match.absent(),
      PublicAccessBlockConfiguration: {
        BlockPublicAcls: true,
        BlockPublicPolicy: true,
        IgnorePublicAcls: true,
        RestrictPublicBuckets: true,
      },
      BucketEncryption: Match.anyValue(),
    },
  });
  usual.hasResourceProperties('AWS::S3::BucketPolicy', {
    PolicyDocument: {
      Statement: Match.arrayWith([
        Match.objectLike({ Effect: 'Deny', Condition: { Bool: { 'aws:SecureTransport': 'false' } } }),
      ]),
    },
  });
});

test('database_outlives_the_stack', () => {
  usual.hasResource('AWS::Glue::Database', { DeletionPolicy: 'Retain' });
});

test('functions_end_within_fourteen_minutes_and_are_the_five', () => {
  const functions = Object.values(usual.findResources('AWS::Lambda::Function'));
  assert.deepEqual(
    functions.map((one) => one.Properties.FunctionName).sort(),
    ['firn-commit', 'firn-ddl', 'firn-ingest', 'firn-maintain', 'firn-mapping'],
  );
  for (const one of functions) {
    assert.ok(one.Properties.Timeout <= 14 * 60);
    assert.equal(one.Properties.Runtime, 'provided.al2023');
    assert.deepEqual(one.Properties.Architectures, ['x86_64']);
    assert.ok(one.Properties.Environment.Variables.FIRN_BUCKET);
    assert.equal(one.Properties.Environment.Variables.AWS_ENDPOINT_URL, undefined);
  }
});

test('architecture_arm64_reaches_every_function', () => {
  const functions = Object.values(templateOf({ architecture: 'arm64' }).findResources('AWS::Lambda::Function'));
  assert.equal(functions.length, 5);
  for (const one of functions) assert.deepEqual(one.Properties.Architectures, ['arm64']);
});

test('no_role_has_a_wildcard_action_or_a_foreign_policy', () => {
  const policies = Object.values(usual.findResources('AWS::IAM::Policy'));
  assert.equal(policies.length, 5);
  for (const policy of policies) {
    for (const statement of policy.Properties.PolicyDocument.Statement as Statement[]) {
      for (const action of actionsOf(statement)) assert.ok(!action.includes('*'), action);
    }
  }
  for (const role of Object.values(usual.findResources('AWS::IAM::Role'))) {
    assert.equal(role.Properties.ManagedPolicyArns, undefined);
  }
});

test('everything_on_any_resource_is_an_action_that_knows_no_resource', () => {
  const known = new Set([
    'lambda:CreateEventSourceMapping',
    'lambda:ListEventSourceMappings',
    'ec2:CreateNetworkInterface',
    'ec2:DeleteNetworkInterface',
    'ec2:DescribeNetworkInterfaces',
    'ec2:DescribeSecurityGroups',
    'ec2:DescribeSubnets',
    'ec2:DescribeVpcs',
  ]);
  for (const role of ROLES) {
    for (const statement of statementsOf(usual, role)) {
      if (statement.Resource !== '*') continue;
      for (const action of actionsOf(statement)) assert.ok(known.has(action), `${role}: ${action}`);
    }
  }
});

test('agent_may_write_objects_and_delete_nothing', () => {
  const policies = Object.values(usual.findResources('AWS::IAM::ManagedPolicy'));
  assert.equal(policies.length, 1);
  const actions = (policies[0]!.Properties.PolicyDocument.Statement as Statement[]).flatMap(actionsOf);
  assert.deepEqual(actions.sort(), ['s3:GetObject', 's3:ListBucket', 's3:PutObject']);
});

test('only_ddl_makes_tables_and_nobody_drops_one', () => {
  const may = (role: string, action: string) =>
    statementsOf(usual, role).some((statement) => actionsOf(statement).includes(action));
  assert.ok(may('Ddl', 'glue:CreateTable'));
  for (const role of ROLES.filter((role) => role !== 'Ddl')) assert.ok(!may(role, 'glue:CreateTable'), role);
  for (const role of ROLES) {
    for (const action of ['s3:DeleteObjectVersion', 'glue:DeleteTable', 'glue:DeleteTableVersion']) {
      assert.ok(!may(role, action), `${role}: ${action}`);
    }
  }
});

test('maintain_alone_removes_more_than_metadata_of_a_lost_race', () => {
  const metadata = '/tables/*/metadata/*';
  const removable: Record<string, string[]> = {
    Ingest: [metadata],
    Commit: [metadata],
    Ddl: [metadata],
    Mapping: [],
    Maintain: ['/control/i/*', '/tables/*/data/*', metadata],
  };
  for (const role of ROLES) {
    const removals = statementsOf(usual, role).filter((one) => actionsOf(one).includes('s3:DeleteObject'));
    for (const statement of removals) assert.deepEqual(actionsOf(statement), ['s3:DeleteObject']);
    const resources = removals.flatMap((one) => [one.Resource].flat()) as { 'Fn::Join': [string, unknown[]] }[];
    assert.deepEqual(resources.map((resource) => resource['Fn::Join'][1].at(-1)), removable[role], role);
  }
});

test('maintain_moves_no_pointer_and_writes_no_table', () => {
  const statements = statementsOf(usual, 'Maintain');
  const glue = statements.flatMap(actionsOf).filter((action) => action.startsWith('glue:'));
  assert.deepEqual(glue, ['glue:GetTable']);
  const writes = statements.filter((statement) => actionsOf(statement).includes('s3:PutObject'));
  assert.match(JSON.stringify(writes.map((one) => one.Resource)), /"\/control\/maintain\/\*"/);
  assert.equal(writes.length, 1);
});

test('retention_of_intents_is_a_week_and_no_less_than_a_day', () => {
  usual.hasResourceProperties('AWS::Lambda::Function', {
    FunctionName: 'firn-maintain',
    Environment: {
      Variables: Match.objectLike({ FIRN_INTENT_RETENTION_HOURS: '168', FIRN_ORPHAN_AGE_HOURS: '72' }),
    },
  });
  assert.throws(() => templateOf({ intentRetentionHours: 23 }), /intentRetentionHours: expected/);
  assert.throws(() => templateOf({ orphanAgeHours: 12 }), /orphanAgeHours: expected/);
});

test('every_writer_reads_the_pointer_version_it_compares', () => {
  for (const role of ['Ingest', 'Commit', 'Ddl']) {
    const glue = statementsOf(usual, role).filter((statement) => actionsOf(statement).includes('glue:UpdateTable'));
    assert.equal(glue.length, 1, role);
    assert.ok(actionsOf(glue[0]!).includes('glue:GetTable'), role);
  }
});

test('every_function_may_tell_a_missing_object_from_a_forbidden_one', () => {
  for (const role of ROLES) {
    assert.ok(
      statementsOf(usual, role).some((statement) => actionsOf(statement).includes('s3:ListBucket')),
      role,
    );
  }
});

test('queue_waits_six_timeouts_and_reports_each_message', () => {
  const commit = Object.values(usual.findResources('AWS::Lambda::Function', {
    Properties: { FunctionName: 'firn-commit' },
  }))[0]!;
  const queues = Object.values(usual.findResources('AWS::SQS::Queue'));
  assert.equal(queues.length, 1);
  assert.ok(queues[0]!.Properties.VisibilityTimeout >= 6 * commit.Properties.Timeout);
  assert.equal(queues[0]!.Properties.RedrivePolicy, undefined);
  usual.hasResourceProperties('AWS::Lambda::EventSourceMapping', {
    FunctionResponseTypes: ['ReportBatchItemFailures'],
    ScalingConfig: { MaximumConcurrency: 2 },
    EventSourceArn: Match.objectLike({ 'Fn::GetAtt': Match.arrayWith(['Arn']) }),
  });
});

test('topic_in_the_settings_is_mapped_and_nothing_is_stepped_over', () => {
  const template = templateOf({ topics: 'shop.public.orders,shop.public.customers', pollerGroup: 'shop' });
  const mappings = Object.values(template.findResources('AWS::Lambda::EventSourceMapping')).filter(
    (mapping) => mapping.Properties.Topics !== undefined,
  );
  assert.deepEqual(
    mappings.map((mapping) => mapping.Properties.Topics),
    [['shop.public.orders'], ['shop.public.customers']],
  );
  for (const { Properties: properties } of mappings) {
    assert.equal(properties.BatchSize, 10_000);
    assert.equal(properties.AmazonManagedKafkaEventSourceConfig.ConsumerGroupId, `firn-ingest.${properties.Topics[0]}`);
    assert.equal(properties.StartingPosition, 'TRIM_HORIZON');
    assert.equal(properties.ProvisionedPollerConfig.PollerGroupName, 'shop');
    assert.deepEqual(properties.FunctionResponseTypes, ['ReportBatchItemFailures']);
    for (const absent of ['DestinationConfig', 'MaximumRecordAgeInSeconds', 'FilterCriteria', 'TumblingWindowInSeconds']) {
      assert.equal(properties[absent], undefined, absent);
    }
    assert.ok(properties.MaximumRetryAttempts === undefined || properties.MaximumRetryAttempts === -1);
  }
});

test('schedules_sweep_maintain_and_map', () => {
  usual.resourceCountIs('AWS::Events::Rule', 3);
  usual.hasResourceProperties('AWS::Events::Rule', { Targets: [Match.objectLike({ Input: '{"sweep":true}' })] });
  usual.hasResourceProperties('AWS::Events::Rule', {
    ScheduleExpression: 'rate(6 hours)',
    Targets: [Match.objectLike({ Input: '{"maintain":true}' })],
  });
  const local = templateOf({ clusterArn: undefined, localEndpoint: 'http://127.0.0.1:4566' });
  local.resourceCountIs('AWS::Events::Rule', 2);
});

test('alarms_watch_gap_quarantine_halt_lag_age_failures_and_throttles', () => {
  const alarms = Object.values(usual.findResources('AWS::CloudWatch::Alarm'));
  const watched = new Set(alarms.map((alarm) => alarm.Properties.MetricName));
  for (const metric of [
    'gaps_total',
    'quarantined_total',
    'halts_total',
    'combine_failures_total',
    'maintain_failures_total',
    'OffsetLag',
    'ApproximateAgeOfOldestMessage',
    'Errors',
    'Throttles',
  ]) {
    assert.ok(watched.has(metric), metric);
  }
  for (const alarm of alarms) {
    assert.match(alarm.Properties.AlarmDescription, /docs\/operations\.md/);
    assert.equal(alarm.Properties.AlarmActions, undefined);
  }
  const topic = 'arn:aws:sns:eu-central-1:111122223333:pager';
  for (const alarm of Object.values(templateOf({ alarmTopicArn: topic }).findResources('AWS::CloudWatch::Alarm'))) {
    assert.deepEqual(alarm.Properties.AlarmActions, [topic]);
  }
});

test('logs_are_kept_for_a_stated_time', () => {
  const groups = Object.values(usual.findResources('AWS::Logs::LogGroup'));
  assert.equal(groups.length, 5);
  for (const group of groups) assert.equal(group.Properties.RetentionInDays, 30);
});

test('local_cloud_gets_its_endpoint_and_no_mappings', () => {
  const local = templateOf({
    bootstraps: undefined,
    clusterArn: undefined,
    codeBucket: 'code',
    codePrefix: 'v1/',
    localEndpoint: 'http://127.0.0.1:4566',
  });
  for (const one of Object.values(local.findResources('AWS::Lambda::Function'))) {
    assert.equal(one.Properties.Environment.Variables.AWS_ENDPOINT_URL, 'http://127.0.0.1:4566');
    assert.equal(one.Properties.Environment.Variables.FIRN_S3_PATH_STYLE, '1');
    assert.deepEqual(one.Properties.Code, { S3Bucket: 'code', S3Key: `v1/${one.Properties.FunctionName}.zip` });
  }
  local.resourceCountIs('AWS::Lambda::EventSourceMapping', 1);
});

test('wrong_settings_are_reported_all_at_once', () => {
  const wrong: Record<string, unknown> = {
    architecture: 'sparc',
    ingestTimeoutSeconds: '900',
    clusterArn: 'my-cluster',
    logRetentionDays: 2,
    subnetIds: 'subnet-1',
  };
  assert.throws(
    () => readSettings((name) => wrong[name]),
    (error: Error) => {
      for (const name of [...Object.keys(wrong), 'bootstraps']) assert.match(error.message, new RegExp(`${name}[:,]`));
      return true;
    },
  );
});
