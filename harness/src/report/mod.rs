//! Reports: functions of a transcript.
