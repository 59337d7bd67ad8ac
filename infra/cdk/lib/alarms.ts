// What wakes somebody up. Each description says where the way out is written.
//
// firn's own numbers come from the functions' log (embedded metric format, crates/function-kit/src/metric.rs): namespace
// `firn`, dimension `function`. An alarm covers all tables; the log line says which one.

import { Duration } from 'aws-cdk-lib';
import { Alarm, ComparisonOperator, Metric, Stats, TreatMissingData } from 'aws-cdk-lib/aws-cloudwatch';
import type { IMetric } from 'aws-cdk-lib/aws-cloudwatch';
import { SnsAction } from 'aws-cdk-lib/aws-cloudwatch-actions';
import { Topic } from 'aws-cdk-lib/aws-sns';
import type { IQueue } from 'aws-cdk-lib/aws-sqs';
import type { Construct } from 'constructs';

import type { FirnFunctions } from './functions.ts';
import { FUNCTION_NAMES, labelOf, type FunctionName, type Settings } from './settings.ts';

/** Namespace of firn's own metrics. */
const NAMESPACE = 'firn';

export function addAlarms(scope: Construct, settings: Settings, functions: FirnFunctions, queue: IQueue): void {
  const action =
    settings.alarmTopicArn === undefined
      ? undefined
      : new SnsAction(Topic.fromTopicArn(scope, 'AlarmTopic', settings.alarmTopicArn));
  const minute = Duration.minutes(1);

  const alarm = (
    id: string,
    metric: IMetric,
    what: { threshold: number; minutes: number; description: string; whole?: boolean },
  ): void => {
    const made = new Alarm(scope, id, {
      metric,
      threshold: what.threshold,
      comparisonOperator: ComparisonOperator.GREATER_THAN_THRESHOLD,
      evaluationPeriods: what.minutes,
      datapointsToAlarm: what.whole === true ? what.minutes : 1,
      treatMissingData: TreatMissingData.NOT_BREACHING,
      alarmDescription: `${what.description} See docs/operations.md.`,
    });
    if (action !== undefined) made.addAlarmAction(action);
  };
  const own = (name: FunctionName, metricName: string, period: Duration = minute) =>
    new Metric({
      namespace: NAMESPACE,
      metricName,
      dimensionsMap: { function: name },
      statistic: Stats.SUM,
      period,
    });

  alarm('Gap', own('ingest', 'gaps_total'), {
    threshold: 0,
    minutes: 1,
    description: 'Records are missing on a topic; the partition stands still until an operator decides ("A gap").',
  });
  alarm('Quarantine', own('ingest', 'quarantined_total'), {
    threshold: 0,
    minutes: 1,
    description: 'A record that can never succeed was set aside ("Quarantine").',
  });
  for (const name of ['ingest', 'commit'] as const) {
    alarm(`${labelOf(name)}Halt`, own(name, 'halts_total'), {
      threshold: 0,
      minutes: 1,
      description: `firn-${name} met a table that must not go on until an operator decides ("A table halts").`,
    });
    // A combine that is lost to another one is no failure; one that fails for minutes on end is.
    alarm(`${labelOf(name)}CombineFailures`, own(name, 'combine_failures_total'), {
      threshold: 0,
      minutes: 5,
      whole: true,
      description: `firn-${name} cannot commit a table ("A commit fails").`,
    });
  }
  // A table that one run cannot look through is looked through by the next: only failing again and again needs somebody.
  alarm('MaintainFailures', own('maintain', 'maintain_failures_total', Duration.days(1)), {
    threshold: 2,
    minutes: 1,
    description: 'firn-maintain cannot look through a table, which keeps what it no longer needs ("Maintenance fails").',
  });
  for (const name of FUNCTION_NAMES) {
    const label = labelOf(name);
    // Kafka and the queue bring a failed batch again by themselves: only failing minute after minute needs somebody.
    const again = name === 'ingest' || name === 'commit';
    alarm(`${label}Errors`, functions[name].metricErrors({ period: minute, statistic: Stats.SUM }), {
      threshold: 0,
      minutes: 5,
      whole: again,
      description: `firn-${name} fails ("A function fails").`,
    });
    alarm(`${label}Throttles`, functions[name].metricThrottles({ period: minute, statistic: Stats.SUM }), {
      threshold: 0,
      minutes: 5,
      whole: true,
      description: `firn-${name} is held back by the account's concurrency ("Throttled").`,
    });
  }
  alarm(
    'CommitQueueAge',
    queue.metricApproximateAgeOfOldestMessage({ period: minute, statistic: Stats.MAXIMUM }),
    {
      // Two visibility timeouts: a message that failed twice.
      threshold: 12 * settings.functions.commit.timeoutSeconds,
      minutes: 5,
      whole: true,
      description: 'A table waits for its commit ("A commit fails").',
    },
  );
  if (settings.clusterArn !== undefined) {
    alarm(
      'OffsetLag',
      new Metric({
        namespace: 'AWS/Lambda',
        metricName: 'OffsetLag',
        dimensionsMap: { FunctionName: functions.ingest.functionName },
        statistic: Stats.MAXIMUM,
        period: minute,
      }),
      {
        threshold: settings.lagAlarmRecords,
        minutes: 10,
        whole: true,
        description: 'firn-ingest falls behind its topics ("Lag").',
      },
    );
  }
}
